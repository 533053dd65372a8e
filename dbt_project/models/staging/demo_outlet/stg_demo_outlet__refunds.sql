{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("demo_outlet") }} as marketplace,
    refund_id,
    order_id,
    line as order_item_id,
    sku as product_id,
    'return' as kind,
    'refunded' as status,
    {{ utc_day("refunded_at") }} as refunded_on,
    quantity,
    amount as refund_amount,
    {{ currency("demo_outlet") }} as currency,
    reason,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "refunds") }}
from {{ raw("demo_outlet", "refunds") }} as refunds
