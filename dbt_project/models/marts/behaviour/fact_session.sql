{{ config(indexes=[{"columns": ["session_id", "marketplace"], "unique": true}]) }}

select
    session_id,
    marketplace,
    visitor_id,
    customer_id,
    started_at,
    ended_at,
    session_on,
    n_events,
    n_product_views,
    n_cart_adds,
    n_purchases,
    campaign,
    is_bot,
    known_at
from ({{ union_sources("sessions") }}) as sessions
