-- Every version of every item, with the day of its order; an item whose order is unknown keeps the day on which
-- it became known, so that it is counted and seen.
with items as (
    {{ union_sources("order_items") }}
),

orders as (
    select
        marketplace,
        order_id,
        ordered_on
    from {{ ref("int_orders__current") }}
    union all
    select
        marketplace,
        order_id,
        ordered_on
    from {{ ref("int_orders__deleted") }}
)

select
    items.*,
    items.quantity * items.unit_amount as item_amount,
    coalesce(orders.ordered_on, items.known_on) as ordered_on
from items
left join orders on items.marketplace = orders.marketplace and items.order_id = orders.order_id
