-- Items with their share of the order's freight, see opencart_freight_shares. An order's parts come together on each of
-- its days; an item that is not among them any more was taken out by an edit of the order.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["order_id"]}, {"columns": ["product_id"]}],
) }}

with seen as (
    select *
    from {{ raw("opencart", "oc_order_product") }} as oc_order_product
),

confirmed as (
    -- Whoever edits an abandoned checkout makes the shop write a history row with status 0, which is still none.
    select distinct order_id
    from {{ raw("opencart", "oc_order_history") }} as oc_order_history
    where order_status_id <> 0 and not _deleted
),

abandoned as (
    select orders.order_id
    from ({{ newest(raw("opencart", "oc_order"), ["order_id"], "partition_on") }}) as orders
    left join confirmed on orders.order_id = confirmed.order_id
    where orders.order_status_id = 0 and confirmed.order_id is null
),

items as (
    select
        seen.*,
        false as is_deleted
    from seen
    left join abandoned on seen.order_id = abandoned.order_id
    where not seen._deleted and abandoned.order_id is null
),

freight as (
    select
        order_id,
        partition_on,
        sum(value) as freight_amount
    from {{ raw("opencart", "oc_order_total") }} as oc_order_total
    where code = 'shipping' and not _deleted
    group by order_id, partition_on
),

vendors as (
    select * from {{ ref("int_item_vendors__opencart") }}
),

shares as (
    {{ opencart_freight_shares("items", "freight", by=["order_id", "partition_on"]) }}
),

order_days as (
    -- Of the order, not of its items: an edit may have left none.
    select *
    from {{ raw("opencart", "oc_order") }} as oc_order
    where not _deleted
),

versions as (
    {{ with_taken_out(
        "shares", "order_days", group=["order_id"], key=["order_id", "order_product_id"],
        columns=["order_id", "order_product_id", "product_id", "quantity", "price", "freight_amount"],
    ) }}
)

select
    {{ marketplace("opencart") }} as marketplace,
    versions.order_id::text as order_id,
    versions.order_product_id as order_item_id,
    versions.product_id::text as product_id,
    vendors.vendor_id::text as vendor_id,
    versions.quantity,
    versions.price as unit_amount,
    versions.freight_amount,
    {{ currency("opencart") }} as currency,
    versions.is_deleted,
    versions.known_at,
    versions.partition_on as known_on{{ evolved("opencart", "oc_order_product", "seen") }}
from versions
left join seen on versions.order_product_id = seen.order_product_id and versions.partition_on = seen.partition_on
left join vendors
    on
        versions.product_id = vendors.product_id
        and versions.partition_on >= vendors.valid_from
        and versions.partition_on < vendors.valid_until
