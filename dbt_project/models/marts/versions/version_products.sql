{{ config(indexes=[{"columns": ["product_id", "marketplace", "known_on"], "unique": true}]) }}

select
    marketplace,
    product_id,
    category,
    list_price_amount,
    coalesce(is_deleted, false) as is_deleted,
    known_at,
    known_on
from {{ ref("int_products__versions") }}
