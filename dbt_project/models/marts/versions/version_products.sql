{{ config(indexes=[{"columns": ["product_id", "marketplace", "known_on"], "unique": true}]) }}

select
    marketplace,
    product_id,
    category,
    list_price_amount,
    known_at,
    known_on
from {{ ref("int_products__versions") }}
