{{ config(indexes=[{"columns": ["product_id", "stock_on", "marketplace"], "unique": true}]) }}

select
    product_id,
    marketplace,
    known_on as stock_on,
    stock_quantity,
    known_at
from ({{ union_sources("stock") }}) as told
where is_deleted is not true
