-- One payment per order: its total, in the base currency and, rounded as the shop did, as the customer paid it.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with seen as (
    select *
    from {{ raw("opencart", "oc_order") }} as oc_order
),

confirmed as (
    select
        order_id,
        min(partition_on) as partition_on
    from {{ raw("opencart", "oc_order_history") }} as oc_order_history
    where order_status_id <> 0
    group by order_id
),

decimals as (
    select * from {{ ref("int_currency_decimals__opencart") }}
),

orders as (
    -- A checkout that became an order on a later day is paid on that day.
    select
        seen.*,
        greatest(seen.partition_on, confirmed.partition_on) as known_on,
        -- 4.x writes JSON, 3.x a text and a code.
        case
            when left(seen.payment_method, 1) = '{'
                then coalesce(
                    (regexp_match(seen.payment_method, '"code": *"([^"]*)"'))[1],
                    (regexp_match(seen.payment_method, '"name": *"([^"]*)"'))[1]
                )
            else coalesce(nullif(seen.payment_code, ''), seen.payment_method)
        end as method
    from seen
    left join confirmed on seen.order_id = confirmed.order_id
    where seen._deleted or seen.order_status_id <> 0 or confirmed.order_id is not null
)

select distinct on (orders.order_id, orders.known_on)
    {{ marketplace("opencart") }} as marketplace,
    orders.order_id::text as order_id,
    '1' as payment_id,
    {{ utc_day("orders.date_added") }} as paid_on,
    -- cod.cod is the method cod of the extension cod.
    coalesce(nullif(replace(lower(split_part(orders.method, '.', 1)), ' ', '_'), ''), 'unknown') as payment_type,
    1 as n_installments,
    orders.total as payment_amount,
    {{ currency("opencart") }} as currency,
    round(orders.total * orders.currency_value::numeric(18, 8), coalesce(decimals.decimal_place, 2))::numeric(18, 4)
        as customer_amount,
    orders.currency_code as customer_currency,
    orders._deleted as is_deleted,
    orders.known_at,
    orders.known_on
from orders
left join decimals on orders.currency_code = decimals.code
order by
    orders.order_id asc,
    orders.known_on asc,
    orders._deleted desc,
    orders.known_at desc,
    orders.partition_on desc
