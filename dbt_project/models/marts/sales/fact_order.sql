{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
    ],
    meta={"lookback_days": 1, "bi_indexes": [["customer_id", "ordered_on"]]},
) }}

with orders as (
    select *
    from {{ ref("int_orders__current") }}
    where {{ where_touched("orders") }}
),

items as (
    select
        marketplace,
        order_id,
        count(*) as n_items,
        sum(item_amount) as item_amount,
        sum(freight_amount) as freight_amount,
        max(known_at) as known_at,
        -- Of what the items were rounded to, so that an order is what its items are.
        sum(item_reporting_amount) as item_reporting_amount,
        sum(freight_reporting_amount) as freight_reporting_amount
    from {{ ref("fact_order_item") }}
    where {{ where_touched("orders") }}
    group by marketplace, order_id
)

select
    orders.order_id,
    orders.marketplace,
    orders.customer_id,
    orders.ordered_at,
    orders.ordered_on,
    orders.status,
    coalesce(items.n_items, 0)::integer as n_items,
    coalesce(items.item_amount, 0) as item_amount,
    coalesce(items.freight_amount, 0) as freight_amount,
    coalesce(items.item_amount + items.freight_amount, 0) as order_amount,
    orders.currency,
    greatest(orders.known_at, items.known_at) as known_at,
    -- No items are worth nothing in any currency; items without a rate are worth nobody knows what.
    case when items.order_id is null then 0 else items.item_reporting_amount end as item_reporting_amount,
    case when items.order_id is null then 0 else items.freight_reporting_amount end as freight_reporting_amount,
    case
        when items.order_id is null then 0
        else items.item_reporting_amount + items.freight_reporting_amount
    end as order_reporting_amount,
    {{ reporting_currency() }} as reporting_currency
from orders
left join items on orders.marketplace = items.marketplace and orders.order_id = items.order_id
