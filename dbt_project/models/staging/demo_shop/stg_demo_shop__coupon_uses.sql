-- The name of a coupon is the campaign that gave it away.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with placed as (
    select * from {{ raw("demo_shop", "oc_order") }} as oc_order
),

orders as (
    {{ newest("placed", ["order_id"], "partition_on") }}
)

select
    {{ marketplace("demo_shop") }} as marketplace,
    uses.coupon_history_id::text as coupon_use_id,
    uses.order_id::text as order_id,
    orders.email as customer_id,
    uses.name as campaign,
    uses.code as coupon_code,
    -- What the coupon took off, which the shop books as a negative amount.
    -uses.amount as discount_amount,
    {{ currency("demo_shop") }} as currency,
    uses.date_added as used_at,
    uses._deleted as is_deleted,
    uses.known_at,
    uses.partition_on as known_on{{ evolved("demo_shop", "oc_coupon_history", "uses") }}
from {{ raw("demo_shop", "oc_coupon_history") }} as uses
left join orders on uses.order_id = orders.order_id and orders._deleted is not true
