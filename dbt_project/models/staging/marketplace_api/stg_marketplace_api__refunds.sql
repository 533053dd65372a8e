-- Money given back, for what is not told. Its currency is that of its order.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with told as (
    select * from {{ raw("marketplace_api", "orders") }} as orders
),

orders as (
    {{ newest("told", ["order_id"], "partition_on") }}
)

select
    {{ marketplace("marketplace_api") }} as marketplace,
    refunds.refund_id,
    refunds.order_id,
    null::integer as order_item_id,
    null as product_id,
    'refund' as kind,
    'refunded' as status,
    {{ utc_day("refunds.refunded_at") }} as refunded_on,
    null::integer as quantity,
    refunds.amount as refund_amount,
    coalesce(orders.currency, {{ currency("marketplace_api") }}) as currency,
    refunds.reason,
    refunds._deleted as is_deleted,
    refunds.known_at,
    refunds.partition_on as known_on
from {{ raw("marketplace_api", "refunds") }} as refunds
left join orders on refunds.order_id = orders.order_id
