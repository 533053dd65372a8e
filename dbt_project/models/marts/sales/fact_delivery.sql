{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["order_id", "marketplace"], "unique": true}],
    meta={"lookback_days": 1},
) }}

with deliveries as (
    select
        *,
        {{ utc_day("delivered_at") }} - {{ utc_day("estimated_delivery_at") }} as delay_days
    from {{ ref("int_orders__current") }}
    where
        coalesce(approved_at, handed_over_at, delivered_at, estimated_delivery_at) is not null
        and {{ where_touched("orders") }}
)

select
    order_id,
    marketplace,
    approved_at,
    handed_over_at,
    delivered_at,
    estimated_delivery_at,
    extract(epoch from delivered_at - ordered_at)::double precision / 86400 as delivery_days,
    delay_days,
    delay_days > 0 as is_late,
    known_at
from deliveries
