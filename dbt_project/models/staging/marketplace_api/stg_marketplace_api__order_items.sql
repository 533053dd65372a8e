-- An order comes with all of its items whenever it changes: one that is not among them any more was taken out.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with items as (
    select
        *,
        _deleted as is_deleted
    from {{ raw("marketplace_api", "order_items") }} as order_items
),

order_days as (
    select
        order_id,
        partition_on,
        known_at
    from {{ raw("marketplace_api", "orders") }} as orders
    union all
    select
        order_id,
        partition_on,
        known_at
    from items
),

versions as (
    {{ with_taken_out(
        "items", "order_days", group=["order_id"], key=["order_id", "line"],
        columns=["order_id", "line", "product_id", "vendor_id", "quantity", "unit_price", "shipping", "currency"],
    ) }}
)

select
    {{ marketplace("marketplace_api") }} as marketplace,
    order_id,
    line as order_item_id,
    product_id,
    vendor_id,
    quantity,
    unit_price as unit_amount,
    coalesce(shipping, 0) as freight_amount,
    currency,
    is_deleted,
    known_at,
    partition_on as known_on
from versions
