{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("marketplace_api") }} as marketplace,
    order_id,
    customer_email as customer_id,
    placed_at as ordered_at,
    case status when 'pending' then 'created' when 'confirmed' then 'approved' else status end as status,
    currency,
    confirmed_at as approved_at,
    -- The other delivery times come with the shipments: stg_marketplace_api__deliveries.
    null::timestamptz as handed_over_at,
    null::timestamptz as delivered_at,
    null::timestamptz as estimated_delivery_at,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("marketplace_api", "orders") }} as orders
