-- An item whose order is unknown is no sale yet.
{{ config(materialized="view") }}

select
    items.marketplace,
    items.order_id,
    items.order_item_id,
    items.product_id,
    items.vendor_id,
    orders.customer_id,
    orders.status,
    orders.delivered_at,
    {{ utc_day("orders.delivered_at") }} > {{ utc_day("orders.estimated_delivery_at") }} as is_late,
    items.ordered_on,
    items.quantity,
    items.item_amount,
    items.freight_amount,
    coalesce(orders.currency, items.currency) as currency,
    {{ reporting("items.item_amount", "rates.rate") }} as item_reporting_amount,
    {{ reporting("items.freight_amount", "rates.rate") }} as freight_reporting_amount,
    coalesce({{ is_sale("orders.status") }}, false) as is_sale
from {{ ref("int_order_items__current") }} as items
left join {{ ref("int_orders__current") }} as orders
    on items.marketplace = orders.marketplace and items.order_id = orders.order_id
left join {{ ref("int_currency__rates") }} as rates
    on coalesce(orders.currency, items.currency) = rates.currency and items.ordered_on = rates.rate_on
