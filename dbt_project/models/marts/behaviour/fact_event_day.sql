{{ config(
    materialized="incremental",
    touched="session_days",
    touched_columns=["marketplace", "event_on"],
    indexes=[{"columns": ["event_on", "marketplace", "campaign", "is_bot"], "unique": true}],
) }}

select
    marketplace,
    session_on as event_on,
    coalesce(campaign, '') as campaign,
    is_bot,
    count(*)::integer as n_sessions,
    sum(n_events)::integer as n_events,
    sum(n_product_views)::integer as n_product_views,
    sum(n_cart_adds)::integer as n_cart_adds,
    sum(n_purchases)::integer as n_purchases
from {{ ref("fact_session") }}
where {{ where_touched("session_days") }}
group by marketplace, session_on, coalesce(campaign, ''), is_bot
