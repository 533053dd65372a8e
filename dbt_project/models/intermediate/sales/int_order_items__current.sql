-- With what its order says of it, so that sums by day, month or customer join no orders. An item whose order is unknown
-- is no sale yet.
{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[
        {"columns": ["order_id", "order_item_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
    ],
) }}

with items as (
    {{ still_there(ref("int_order_items__versions"), "order_item_id") }}
),

orders as (
    select *
    from {{ ref("int_orders__current") }}
    where {{ where_touched("contents") }}
)

select
    items.marketplace,
    items.order_id,
    items.order_item_id,
    items.product_id,
    items.vendor_id,
    -- Counts the order once for a vendor that sells more than one item of it.
    row_number() over (
        partition by items.marketplace, items.order_id, items.vendor_id, items.ordered_on order by items.order_item_id
    ) = 1 as is_first_of_vendor,
    orders.customer_id,
    orders.ordered_at,
    items.ordered_on,
    coalesce({{ is_sale("orders.status") }}, false) as is_sale,
    items.quantity,
    items.unit_amount,
    items.item_amount,
    items.freight_amount,
    coalesce(orders.currency, items.currency) as currency,
    {{ reporting("items.unit_amount", "rates.rate") }} as unit_reporting_amount,
    {{ reporting("items.item_amount", "rates.rate") }} as item_reporting_amount,
    {{ reporting("items.freight_amount", "rates.rate") }} as freight_reporting_amount,
    greatest(items.known_at, orders.sale_known_at) as known_at
from items
left join orders on items.marketplace = orders.marketplace and items.order_id = orders.order_id
left join {{ ref("int_currency__rates") }} as rates
    on coalesce(orders.currency, items.currency) = rates.currency and items.ordered_on = rates.rate_on
