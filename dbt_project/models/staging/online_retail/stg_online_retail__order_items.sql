{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("online_retail") }} as marketplace,
    invoice_no as order_id,
    line_no as order_item_id,
    stock_code as product_id,
    null as vendor_id,
    quantity,
    unit_price as unit_amount,
    0 as freight_amount,
    {{ currency("online_retail") }} as currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("online_retail", "lines") }}
from {{ raw("online_retail", "lines") }} as lines
