{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("demo_outlet") }} as marketplace,
    order_id,
    approved_at,
    handed_over_at,
    delivered_at,
    estimated_delivery_at,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "shipments") }}
from {{ raw("demo_outlet", "shipments") }} as shipments
