{{ config(indexes=[{"columns": ["product_id", "marketplace"], "unique": true}, {"columns": ["matched_product_id"]}]) }}

with sold as (
    select
        marketplace,
        product_id,
        min(ordered_on) as first_sold_on,
        min(currency) as currency
    from {{ ref("int_sales__product_days") }}
    group by marketplace, product_id
),

listed as (
    {{ newest(ref("int_products__versions"), ["marketplace", "product_id"]) }}
),

products as (
    -- A product that was sold is here whether the catalogue tells of it or not, so that no join loses a sale: one that
    -- was removed from the catalogue keeps what it was. A product that was removed and never sold is not here.
    select
        marketplace,
        product_id,
        listed.product_name,
        coalesce(listed.category, 'unknown') as category,
        listed.list_price_amount,
        coalesce(listed.currency, sold.currency) as currency,
        sold.first_sold_on,
        coalesce(listed.is_product, true) as is_product,
        listed.sku,
        listed.gtin,
        listed.status,
        coalesce(listed.is_deleted, false) as is_deleted,
        listed.known_on
    from listed
    full join sold using (marketplace, product_id)
    where listed.is_deleted is not true or sold.product_id is not null
)

select
    products.marketplace,
    products.product_id,
    products.product_name,
    products.category,
    products.list_price_amount,
    products.currency,
    products.first_sold_on,
    products.is_product,
    products.sku,
    products.gtin,
    products.status,
    products.is_deleted,
    -- The product that the mapping names may itself have a GTIN, by which others find it.
    coalesce(
        'gtin:' || products.gtin,
        'gtin:' || mapped.gtin,
        mapping.matched_product_id,
        products.marketplace || ':' || products.product_id
    ) as matched_product_id,
    {{ reporting("products.list_price_amount", "rates.rate") }} as list_price_reporting_amount,
    {{ reporting_currency() }} as reporting_currency
from products
left join {{ ref("product_mapping") }} as mapping
    on products.marketplace = mapping.marketplace and products.product_id = mapping.product_id
left join products as mapped on mapping.matched_product_id = mapped.marketplace || ':' || mapped.product_id
left join {{ ref("int_currency__rates") }} as rates
    on products.currency = rates.currency and products.known_on = rates.rate_on
