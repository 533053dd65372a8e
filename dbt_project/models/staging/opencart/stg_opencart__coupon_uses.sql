-- The name of a coupon is the campaign that gave it away. Guests use coupons too: the customer is the order's.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with placed as (
    select * from {{ raw("opencart", "oc_order") }} as oc_order
),

orders as (
    {{ newest("placed", ["order_id"], "partition_on") }}
),

coupons as (
    select * from {{ ref("int_coupons__opencart") }}
)

select
    {{ marketplace("opencart") }} as marketplace,
    uses.coupon_history_id::text as coupon_use_id,
    uses.order_id::text as order_id,
    orders.email as customer_id,
    coupons.name as campaign,
    coupons.code as coupon_code,
    -- What the coupon took off, which the shop books as a negative amount.
    -uses.amount as discount_amount,
    {{ currency("opencart") }} as currency,
    uses.date_added as used_at,
    uses.coupon_id,
    uses._deleted as is_deleted,
    uses.known_at,
    uses.partition_on as known_on{{ evolved("opencart", "oc_coupon_history", "uses") }}
from {{ raw("opencart", "oc_coupon_history") }} as uses
left join orders on uses.order_id = orders.order_id and orders._deleted is not true
left join coupons on uses.coupon_id = coupons.coupon_id
