{{ config(indexes=[{"columns": ["order_id", "order_item_id", "marketplace"], "unique": true}]) }}

with items as (
    select * from {{ ref("int_order_items__current") }}
),

orders as (
    select * from {{ ref("int_orders__current") }}
)

select
    items.order_id,
    items.order_item_id,
    items.marketplace,
    items.product_id,
    items.vendor_id,
    orders.customer_id,
    orders.ordered_at,
    items.ordered_on,
    items.quantity,
    items.unit_amount,
    items.item_amount,
    items.freight_amount,
    coalesce(orders.currency, items.currency) as currency,
    greatest(items.known_at, orders.known_at) as known_at
from items
left join orders on items.marketplace = orders.marketplace and items.order_id = orders.order_id
