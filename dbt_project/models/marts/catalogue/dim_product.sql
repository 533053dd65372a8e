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

-- A product that was sold is here whether the catalogue tells of it or not, so that no join loses a sale: one that
-- was removed from the catalogue keeps what it was. A product that was removed and never sold is not here.
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
where products.is_deleted is not true or sold.product_id is not null
