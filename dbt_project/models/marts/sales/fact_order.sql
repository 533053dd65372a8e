{{ config(indexes=[{"columns": ["order_id", "marketplace"], "unique": true}]) }}

with orders as (
    select * from {{ ref("int_orders__current") }}
),

items as (
    select
        marketplace,
        order_id,
        count(*) as n_items,
        sum(item_amount) as item_amount,
        sum(freight_amount) as freight_amount,
        max(known_at) as known_at
    from {{ ref("int_order_items__current") }}
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
    greatest(orders.known_at, items.known_at) as known_at
from orders
left join items on orders.marketplace = items.marketplace and orders.order_id = items.order_id
