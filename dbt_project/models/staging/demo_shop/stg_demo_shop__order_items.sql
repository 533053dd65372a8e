-- Items with their share of the order's freight, see opencart_freight_shares.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["order_id"]}, {"columns": ["product_id"]}],
) }}

with placed as (
    select * from {{ raw("demo_shop", "oc_order_product") }} as oc_order_product
),

abandoned as (
    select order_id
    from ({{ newest(raw("demo_shop", "oc_order"), ["order_id"], "partition_on") }}) as newest
    where order_status_id = 0
),

items as (
    select placed.*
    from placed
    left join abandoned on placed.order_id = abandoned.order_id
    where abandoned.order_id is null
),

freight as (
    select
        order_id,
        sum(value) as freight_amount
    from ({{ newest(raw("demo_shop", "oc_order_total"), ["order_id", "order_total_id"], "partition_on") }}) as newest
    where code = 'shipping' and _deleted is not true
    group by order_id
),

vendors as (
    select * from {{ ref("int_item_vendors__demo_shop") }}
),

shares as (
    {{ opencart_freight_shares("items", "freight", by=["order_id"]) }}
)

select
    {{ marketplace("demo_shop") }} as marketplace,
    shares.order_id::text as order_id,
    shares.order_product_id as order_item_id,
    shares.product_id::text as product_id,
    vendors.vendor_id::text as vendor_id,
    shares.quantity,
    shares.price as unit_amount,
    shares.freight_amount,
    {{ currency("demo_shop") }} as currency,
    shares._deleted as is_deleted,
    shares.known_at,
    shares.partition_on as known_on{{ evolved("demo_shop", "oc_order_product", "shares") }}
from shares
left join vendors
    on
        shares.product_id = vendors.product_id
        and shares.partition_on >= vendors.valid_from
        and shares.partition_on < vendors.valid_until
