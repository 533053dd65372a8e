{{ config(indexes=[{"columns": ["product_id", "marketplace"], "unique": true}]) }}

with sold as (
    select
        marketplace,
        product_id,
        min(ordered_on) as first_sold_on,
        min(currency) as currency
    from {{ ref("int_order_items__current") }}
    group by marketplace, product_id
),

products as (
    {{ newest(ref("int_products__versions"), ["marketplace", "product_id"]) }}
)

-- A product that was sold before the catalogue told of it is here as well, so that no join loses a sale.
select
    marketplace,
    product_id,
    products.product_name,
    coalesce(products.category, 'unknown') as category,
    products.list_price_amount,
    coalesce(products.currency, sold.currency) as currency,
    sold.first_sold_on,
    coalesce(products.is_product, true) as is_product
from products
full join sold using (marketplace, product_id)
