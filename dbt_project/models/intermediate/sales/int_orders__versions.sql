-- Every version of every order. Where a source reports deliveries apart from orders, an order changes on the days
-- of both, and each version carries the newest row of either that was known by then.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["order_id", "marketplace", "known_on"], "unique": true}],
) }}

{%- set apart = sources_with("deliveries") %}

with whole as (
    select *
    from ({{ union_sources("orders", without=apart) }}) as told
    where {{ where_touched("orders", "told") }}
),

orders as (
    select *
    from ({{ union_sources("orders", only=apart) }}) as told
    where {{ where_touched("orders", "told") }}
),

deliveries as (
    select *
    from ({{ union_sources("deliveries") }}) as told
    where {{ where_touched("orders", "told") }}
),

days as (
    select
        marketplace,
        order_id,
        known_on,
        max(known_at) as known_at
    from (
        select
            marketplace,
            order_id,
            known_on,
            known_at
        from orders
        union all
        select
            marketplace,
            order_id,
            known_on,
            known_at
        from deliveries
    ) as learned
    group by marketplace, order_id, known_on
),

numbered as (
    select
        days.marketplace,
        days.order_id,
        days.known_on,
        days.known_at,
        max(orders.known_on) over versions as order_known_on,
        max(deliveries.known_on) over versions as delivery_known_on
    from days
    left join orders using (marketplace, order_id, known_on)
    left join deliveries using (marketplace, order_id, known_on)
    window versions as (partition by days.marketplace, days.order_id order by days.known_on)
),

merged as (
    -- A delivery whose order is not known yet makes no version: its times appear with the order.
    select
        numbered.marketplace,
        numbered.order_id,
        orders.customer_id,
        orders.ordered_at,
        orders.status,
        orders.currency,
        coalesce(deliveries.approved_at, orders.approved_at) as approved_at,
        coalesce(deliveries.handed_over_at, orders.handed_over_at) as handed_over_at,
        coalesce(deliveries.delivered_at, orders.delivered_at) as delivered_at,
        coalesce(deliveries.estimated_delivery_at, orders.estimated_delivery_at) as estimated_delivery_at,
        orders.is_deleted,
        numbered.known_at,
        numbered.known_on
    from numbered
    inner join orders
        on
            numbered.marketplace = orders.marketplace
            and numbered.order_id = orders.order_id
            and numbered.order_known_on = orders.known_on
    left join deliveries
        on
            numbered.marketplace = deliveries.marketplace
            and numbered.order_id = deliveries.order_id
            and numbered.delivery_known_on = deliveries.known_on
            and deliveries.is_deleted is not true
)

select
    {{ conformed_columns("orders").keys() | join(",\n    ") }}
from whole
union all
select
    {{ conformed_columns("orders").keys() | join(",\n    ") }}
from merged
