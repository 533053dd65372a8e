{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("demo_outlet") }} as marketplace,
    order_id,
    customer_email as customer_id,
    ordered_at,
    status,
    currency,
    -- Delivery times come in a file of their own: stg_demo_outlet__deliveries.
    null::timestamptz as approved_at,
    null::timestamptz as handed_over_at,
    null::timestamptz as delivered_at,
    null::timestamptz as estimated_delivery_at,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "orders") }}
from {{ raw("demo_outlet", "orders") }} as orders
