{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[{"columns": ["order_id", "order_item_id", "marketplace", "known_on"], "unique": true}],
) }}

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
    coalesce(is_deleted, false) as is_deleted,
    known_at,
    known_on
from {{ ref("int_order_items__versions") }}
-- A tombstone of an item that was never seen says nothing.
where
    (quantity is not null or is_deleted is not true)
    and {{ where_touched("contents") }}
