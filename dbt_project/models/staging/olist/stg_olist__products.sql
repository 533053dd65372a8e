-- Some products have no category and two categories have no translation.
with products as (
    select * from {{ source("olist", "products") }}
),

translation as (
    {{ newest(source("olist", "category_translation"), ["product_category_name"], "partition_on") }}
)

select
    {{ marketplace("olist") }} as marketplace,
    products.product_id,
    null as product_name,
    coalesce(translation.product_category_name_english, products.product_category_name, 'unknown') as category,
    null::numeric as list_price_amount,
    {{ currency("olist") }} as currency,
    true as is_product,
    null as sku,
    null as gtin,
    null::integer as stock_quantity,
    null as status,
    products._deleted as is_deleted,
    products.known_at,
    products.partition_on as known_on{{ evolved("olist", "products", "products") }}
from products
left join translation on products.product_category_name = translation.product_category_name
