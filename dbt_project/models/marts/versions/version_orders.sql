{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["order_id", "marketplace", "known_on"], "unique": true}],
) }}

select
    marketplace,
    order_id,
    customer_id,
    ordered_at,
    {{ utc_day("ordered_at") }} as ordered_on,
    status,
    approved_at,
    handed_over_at,
    delivered_at,
    estimated_delivery_at,
    coalesce(is_deleted, false) as is_deleted,
    known_at,
    known_on
from {{ ref("int_orders__versions") }}
-- A tombstone of an order that was never seen says nothing.
where
    (ordered_at is not null or is_deleted is not true)
    and {{ where_touched("orders") }}
