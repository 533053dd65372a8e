-- Each vendor ships its own part: an order's times on a day follow from what was known of all its shipments.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with told as (
    select * from {{ raw("marketplace_api", "shipments") }} as shipments
),

days as (
    select distinct
        order_id,
        partition_on as known_on
    from told
    where order_id is not null
),

shipments as (
    select distinct on (days.order_id, days.known_on, told.shipment_id)
        days.order_id,
        days.known_on,
        told.shipped_at,
        told.delivered_at,
        told.promised_at,
        told.known_at,
        told._deleted as is_deleted
    from days
    inner join told on days.order_id = told.order_id and days.known_on >= told.partition_on
    order by days.order_id asc, days.known_on asc, told.shipment_id asc, told.partition_on desc
)

select
    {{ marketplace("marketplace_api") }} as marketplace,
    order_id,
    null::timestamptz as approved_at,
    min(shipped_at) filter (where not is_deleted) as handed_over_at,
    case
        when bool_and(delivered_at is not null) filter (where not is_deleted)
            then max(delivered_at) filter (where not is_deleted)
    end as delivered_at,
    max(promised_at) filter (where not is_deleted) as estimated_delivery_at,
    bool_and(is_deleted) as is_deleted,
    max(known_at) as known_at,
    known_on
from shipments
group by order_id, known_on
