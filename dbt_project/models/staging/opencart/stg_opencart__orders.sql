-- Orders as of each day. OpenCart overwrites an order's status, so it is read from the history; a change that left
-- no history is seen where it touched date_modified.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with orders as (
    select *
    from {{ raw("opencart", "oc_order") }} as oc_order
),

placed as (
    select distinct on (order_id) *
    from orders
    where not _deleted
    order by order_id asc, known_at desc, partition_on desc
),

confirmed as (
    -- A checkout is an order from its first status on, which may be days after it was begun.
    select
        order_id,
        min(partition_on) as known_on
    from {{ raw("opencart", "oc_order_history") }} as oc_order_history
    where order_status_id <> 0 and not _deleted
    group by order_id
),

history as (
    -- A checkout that is edited has rows with status 0 before it is an order.
    select
        newest.order_id,
        newest.partition_on as known_on,
        newest.known_at,
        newest.date_added as happened_at,
        newest.order_history_id,
        {{ opencart_status("newest.order_status_id") }} as status
    from ({{ newest(raw("opencart", "oc_order_history"), ["order_id", "order_history_id"], "partition_on") }}) as newest
    inner join confirmed on newest.order_id = confirmed.order_id
    where not newest._deleted and newest.partition_on >= confirmed.known_on
),

changes as (
    -- Status 0 is an abandoned checkout, not an order. A row says which status it had when it was last modified;
    -- of a day before that it only says that the order was there.
    select
        orders.order_id,
        orders.partition_on as known_on,
        orders.known_at,
        orders.date_modified as happened_at,
        0 as order_history_id,
        case
            when {{ utc_day("orders.date_modified") }} <= orders.partition_on
                then {{ opencart_status("orders.order_status_id") }}
        end as status
    from orders
    left join confirmed on orders.order_id = confirmed.order_id
    where
        not orders._deleted
        and coalesce(orders.partition_on >= confirmed.known_on, orders.order_status_id <> 0)
),

learned as (
    select * from history
    union all
    select * from changes
),

known_orders as (
    select placed.order_id
    from placed
    left join confirmed on placed.order_id = confirmed.order_id
    where placed.order_status_id <> 0 or confirmed.order_id is not null
),

days as (
    select
        learned.order_id,
        learned.known_on,
        max(learned.known_at) as known_at,
        (
            array_agg(learned.status order by learned.happened_at desc nulls last, learned.order_history_id desc)
            filter (where learned.status is not null)
        )[1] as status,
        min(learned.happened_at) filter (where learned.status = 'approved') as approved_at,
        min(learned.happened_at) filter (where learned.status = 'shipped') as handed_over_at,
        min(learned.happened_at) filter (where learned.status = 'delivered') as delivered_at,
        false as is_deleted
    from learned
    inner join known_orders on learned.order_id = known_orders.order_id
    group by learned.order_id, learned.known_on
    union all
    select
        order_id,
        partition_on,
        known_at,
        null as status,
        null as approved_at,
        null as handed_over_at,
        null as delivered_at,
        true as is_deleted
    from orders
    where _deleted
),

versions as (
    select
        *,
        -- The newest status that was known by then: a day may bring none.
        (array_agg(status) filter (where status is not null) over so_far)[count(status) over so_far] as known_status,
        min(approved_at) over so_far as known_approved_at,
        min(handed_over_at) over so_far as known_handed_over_at,
        min(delivered_at) over so_far as known_delivered_at
    from days
    window so_far as (partition by order_id order by known_on, is_deleted)
)

select distinct on (placed.order_id, versions.known_on)
    {{ marketplace("opencart") }} as marketplace,
    placed.order_id::text as order_id,
    placed.email as customer_id,
    placed.date_added as ordered_at,
    coalesce(versions.known_status, 'created') as status,
    -- Amounts are in the shop's base currency; in which one the customer paid, and at which rate:
    {{ currency("opencart") }} as currency,
    placed.currency_code as customer_currency,
    placed.currency_value::numeric(18, 8) as customer_currency_rate,
    versions.known_approved_at as approved_at,
    versions.known_handed_over_at as handed_over_at,
    versions.known_delivered_at as delivered_at,
    null::timestamptz as estimated_delivery_at,
    versions.is_deleted,
    versions.known_at,
    versions.known_on{{ evolved("opencart", "oc_order", "placed") }}
from versions
inner join placed on versions.order_id = placed.order_id
order by placed.order_id asc, versions.known_on asc, versions.is_deleted desc
