{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "order_item_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
        {"columns": ["marketplace", "vendor_id", "item_amount"]},
    ],
    meta={"lookback_days": 1},
) }}

with items as (
    select *
    from {{ ref("int_order_items__current") }}
    where {{ where_touched("orders") }}
),

orders as (
    select *
    from {{ ref("int_orders__current") }}
    where {{ where_touched("orders") }}
),

rates as (
    select * from {{ ref("int_currency__rates") }}
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
    greatest(items.known_at, orders.sale_known_at) as known_at,
    {{ reporting("items.unit_amount", "rates.rate") }} as unit_reporting_amount,
    {{ reporting("items.item_amount", "rates.rate") }} as item_reporting_amount,
    {{ reporting("items.freight_amount", "rates.rate") }} as freight_reporting_amount,
    coalesce({{ is_sale("orders.status") }}, false) as is_sale,
    {{ reporting_currency() }} as reporting_currency
from items
left join orders on items.marketplace = orders.marketplace and items.order_id = orders.order_id
left join rates
    on coalesce(orders.currency, items.currency) = rates.currency and items.ordered_on = rates.rate_on
