-- Each row is one unit.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("olist") }} as marketplace,
    order_id,
    order_item_id,
    product_id,
    seller_id as vendor_id,
    1 as quantity,
    price as unit_amount,
    freight_value as freight_amount,
    {{ currency("olist") }} as currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("olist", "order_items") }}
from {{ raw("olist", "order_items") }} as order_items
