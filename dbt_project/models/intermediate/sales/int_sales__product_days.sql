-- What larger aggregates are made of: 10 million items are some 3 million rows here.
{{ config(
    materialized="incremental",
    touched="sale_days",
    indexes=[
        {"columns": ["product_id", "ordered_on", "marketplace", "vendor_id", "currency"], "unique": true},
        {"columns": ["ordered_on", "marketplace"]},
    ],
) }}

with days as (
    select
        marketplace,
        product_id,
        coalesce(vendor_id, '') as vendor_id,
        currency,
        ordered_on,
        count(*)::integer as n_items,
        (count(*) filter (where is_sale))::integer as n_sold_items,
        coalesce(sum(quantity) filter (where is_sale), 0) as n_units,
        coalesce(sum(item_amount) filter (where is_sale), 0) as item_amount,
        sum(item_reporting_amount) filter (where is_sale) as item_reporting_amount
    from {{ ref("int_order_items__current") }}
    where {{ where_touched("sale_days") }}
    group by marketplace, product_id, coalesce(vendor_id, ''), currency, ordered_on
)

select
    days.*,
    coalesce(categories.category, 'unknown') as category
from days
{{ as_of_join(
    ref("int_products__categories"), ["marketplace", "product_id"], on="days.ordered_on", of="days", name="categories"
) }}
