-- The lines of a C... invoice, which takes goods back; for which order is not told, so it is its own. Discounts and
-- fees that such an invoice takes back are no goods: money only.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("online_retail") }} as marketplace,
    invoice_no || '-' || line_no as refund_id,
    invoice_no as order_id,
    line_no as order_item_id,
    stock_code as product_id,
    case when {{ online_retail_is_product("stock_code") }} then 'return' else 'refund' end as kind,
    'refunded' as status,
    {{ utc_day("invoice_date") }} as refunded_on,
    -quantity as quantity,
    -quantity * unit_price as refund_amount,
    {{ currency("online_retail") }} as currency,
    null as reason,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("online_retail", "lines") }}
from {{ raw("online_retail", "lines") }} as lines
where left(invoice_no, 1) = 'C'
