{{ config(indexes=[{"columns": ["event_id", "marketplace", "known_on"], "unique": true}]) }}

select
    marketplace,
    event_id,
    visitor_id,
    customer_id,
    event_type,
    product_id,
    event_at,
    known_at,
    known_on
from {{ ref("int_events__versions") }}
