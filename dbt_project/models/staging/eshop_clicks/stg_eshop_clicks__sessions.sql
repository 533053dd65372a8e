-- Sessions of the clothing shop.
select
    session_id,
    marketplace,
    visitor_id,
    customer_id,
    session_on,
    started_at,
    ended_at,
    n_events,
    n_product_views,
    n_cart_adds,
    n_purchases,
    campaign,
    is_bot,
    known_at
from {{ source("eshop_clicks", "sessions") }}
