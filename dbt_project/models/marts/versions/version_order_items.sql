{{ config(indexes=[{"columns": ["order_id", "order_item_id", "marketplace", "known_on"], "unique": true}]) }}

select
    marketplace,
    order_id,
    order_item_id,
    product_id,
    vendor_id,
    quantity,
    item_amount,
    freight_amount,
    ordered_on,
    known_at,
    known_on
from {{ ref("int_order_items__versions") }}
