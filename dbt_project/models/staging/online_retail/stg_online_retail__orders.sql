-- An invoice is an order. C... takes one back and A... adjusts a debt: neither is a sale, so both are canceled.
-- An ordinary invoice says that the order was accepted; nothing tells of its delivery.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("online_retail") }} as marketplace,
    invoice_no as order_id,
    max(customer_id) as customer_id,
    min(invoice_date) as ordered_at,
    case when left(invoice_no, 1) in ('C', 'A') then 'canceled' else 'approved' end as status,
    {{ currency("online_retail") }} as currency,
    null::timestamptz as approved_at,
    null::timestamptz as handed_over_at,
    null::timestamptz as delivered_at,
    null::timestamptz as estimated_delivery_at,
    bool_and(_deleted) as is_deleted,
    max(known_at) as known_at,
    partition_on as known_on
from {{ raw("online_retail", "lines") }} as lines
group by invoice_no, partition_on
