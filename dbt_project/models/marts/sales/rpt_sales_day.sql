{{ config(
    materialized="incremental",
    touched="sale_days",
    indexes=[
        {"columns": ["date_on", "marketplace", "vendor_id", "category", "currency"], "unique": true},
        {"columns": ["marketplace", "vendor_id", "date_on"]},
    ],
) }}

with orders as (
    -- One row for each order, vendor and category, so that orders are counted once.
    select
        items.marketplace,
        items.order_id,
        items.ordered_on,
        items.currency,
        coalesce(items.vendor_id, '') as vendor_id,
        coalesce(categories.category, 'unknown') as category,
        items.customer_id is null as is_guest,
        sum(items.quantity) as n_units,
        sum(items.item_amount) as item_amount,
        sum(items.item_reporting_amount) as item_reporting_amount,
        sum(items.freight_amount) as freight_amount,
        sum(items.freight_reporting_amount) as freight_reporting_amount
    from {{ ref("int_order_items__current") }} as items
    {{ as_of_join(
        ref("int_products__categories"),
        ["marketplace", "product_id"],
        on="items.ordered_on",
        of="items",
        name="categories"
    ) }}
    where items.is_sale and {{ where_touched("sale_days", "items") }}
    group by
        items.marketplace,
        items.order_id,
        items.ordered_on,
        items.currency,
        coalesce(items.vendor_id, ''),
        coalesce(categories.category, 'unknown'),
        items.customer_id is null
)

select
    ordered_on as date_on,
    marketplace,
    vendor_id,
    category,
    count(*)::integer as n_orders,
    (count(*) filter (where is_guest))::integer as n_guest_orders,
    sum(n_units)::bigint as n_units,
    sum(item_amount) as item_amount,
    sum(freight_amount) as freight_amount,
    currency,
    sum(item_reporting_amount) as item_reporting_amount,
    sum(freight_reporting_amount) as freight_reporting_amount,
    {{ reporting_currency() }} as reporting_currency
from orders
group by ordered_on, marketplace, vendor_id, category, currency
