-- Orders as of each day: the shop overwrites an order's status, so it is read from the history instead.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with placed as (
    -- Status 0 is an abandoned checkout, not an order.
    select *
    from ({{ newest(raw("demo_shop", "oc_order"), ["order_id"], "partition_on") }}) as newest
    where order_status_id <> 0
),

history as (
    select
        order_id,
        order_history_id,
        date_added,
        partition_on,
        known_at,
        estimated_on,
        case order_status_id
            when 1 then 'created'
            when 2 then 'approved'
            when 3 then 'shipped'
            when 5 then 'delivered'
            when 7 then 'canceled'
            when 11 then 'returned'
        end as status
    from (
        {{ newest(raw("demo_shop", "oc_order_history"), ["order_id", "order_history_id"], "partition_on") }}
    ) as newest
    where order_status_id in (1, 2, 3, 5, 7, 11) and _deleted is not true
),

learned as (
    select
        order_id,
        partition_on as known_on,
        known_at,
        0 as order_history_id,
        date_added,
        null as status,
        null::date as estimated_on,
        _deleted is true as is_deleted
    from {{ raw("demo_shop", "oc_order") }} as oc_order
    where order_status_id <> 0
    union all
    select
        order_id,
        partition_on,
        known_at,
        order_history_id,
        date_added,
        status,
        estimated_on,
        null as is_deleted
    from history
),

-- date_added is the cursor by which the shop is read, so a later day never brings an earlier history row.
days as (
    select
        order_id,
        known_on,
        max(known_at) as known_at,
        (array_agg(status order by date_added desc, order_history_id desc) filter (where status is not null))[1]
            as status,
        min(date_added) filter (where status = 'approved') as approved_at,
        min(date_added) filter (where status = 'shipped') as handed_over_at,
        min(date_added) filter (where status = 'delivered') as delivered_at,
        min(estimated_on) as estimated_on,
        bool_or(is_deleted) as is_deleted
    from learned
    group by order_id, known_on
)

select
    {{ marketplace("demo_shop") }} as marketplace,
    placed.order_id::text as order_id,
    placed.email as customer_id,
    placed.date_added as ordered_at,
    coalesce(days.status, 'created') as status,
    -- OpenCart keeps amounts in the shop's base currency; currency_code is only what the customer saw.
    {{ currency("demo_shop") }} as currency,
    min(days.approved_at) over versions as approved_at,
    min(days.handed_over_at) over versions as handed_over_at,
    min(days.delivered_at) over versions as delivered_at,
    -- The shop promises a day when it approves the order; it is unknown before.
    (min(days.estimated_on) over versions)::timestamp at time zone 'UTC' as estimated_delivery_at,
    -- A removed order stays so whatever its history says later, unless it comes back itself.
    coalesce(
        (array_agg(days.is_deleted) filter (where days.is_deleted is not null) over versions)[
            count(days.is_deleted) over versions
        ],
        false
    ) as is_deleted,
    days.known_at,
    days.known_on{{ evolved("demo_shop", "oc_order", "placed") }}
from days
inner join placed using (order_id)
window versions as (partition by days.order_id order by days.known_on)
