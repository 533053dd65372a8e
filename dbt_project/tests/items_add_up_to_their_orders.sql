-- Per marketplace, orders carry exactly the amounts of the items whose order is known.
with orders as (
    select
        marketplace,
        sum(item_amount) as item_amount,
        sum(freight_amount) as freight_amount,
        sum(n_items) as n_items
    from {{ ref("fact_order") }}
    group by marketplace
),

items as (
    select
        marketplace,
        sum(item_amount) as item_amount,
        sum(freight_amount) as freight_amount,
        count(*) as n_items
    from {{ ref("fact_order_item") }}
    where ordered_at is not null
    group by marketplace
)

select
    marketplace,
    orders.item_amount as order_side_item_amount,
    items.item_amount as item_side_item_amount,
    orders.freight_amount as order_side_freight_amount,
    items.freight_amount as item_side_freight_amount
from orders
full join items using (marketplace)
where
    coalesce(orders.item_amount, 0) <> coalesce(items.item_amount, 0)
    or coalesce(orders.freight_amount, 0) <> coalesce(items.freight_amount, 0)
    or coalesce(orders.n_items, 0) <> coalesce(items.n_items, 0)
