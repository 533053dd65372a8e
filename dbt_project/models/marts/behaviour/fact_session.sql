{{ config(indexes=[{"columns": ["session_id", "marketplace"], "unique": true}]) }}

select
    session_id,
    marketplace,
    visitor_id,
    -- Who logged in last, where anyone did.
    (array_agg(customer_id order by event_at desc, event_id desc) filter (where customer_id is not null))[1]
        as customer_id,
    min(event_at) as started_at,
    max(event_at) as ended_at,
    {{ utc_day("min(event_at)") }} as session_on,
    count(*)::integer as n_events,
    (count(*) filter (where event_type = 'view'))::integer as n_product_views,
    (count(*) filter (where event_type = 'cart'))::integer as n_cart_adds,
    (count(*) filter (where event_type = 'purchase'))::integer as n_purchases,
    max(known_at) as known_at
from {{ ref("int_events__sessionised") }}
group by marketplace, visitor_id, visit, session_id
