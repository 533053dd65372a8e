-- The click stream of the demo shop.
select
    {{ marketplace("demo_clicks") }} as marketplace,
    event_id,
    visitor_id,
    customer_email as customer_id,
    event_type,
    product_id,
    event_at,
    known_at,
    partition_on as known_on
from {{ source("demo_clicks", "events") }}
