{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("demo_outlet") }} as marketplace,
    order_id,
    line as order_item_id,
    sku as product_id,
    vendor_code as vendor_id,
    quantity,
    unit_price as unit_amount,
    coalesce(freight, 0) as freight_amount,
    {{ currency("demo_outlet") }} as currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "order_items") }}
from {{ raw("demo_outlet", "order_items") }} as order_items
