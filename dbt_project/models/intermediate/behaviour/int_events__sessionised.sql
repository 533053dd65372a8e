-- A session ends with 30 minutes of silence of the visitor, and at midnight UTC.
{{ config(materialized="view") }}

with events as (
    {{ newest(ref("int_events__versions"), ["marketplace", "event_id"]) }}
),

starts as (
    select
        *,
        coalesce(
            event_at - lag(event_at) over visits >= interval '30 minutes'
            or {{ utc_day("event_at") }} <> {{ utc_day("lag(event_at) over visits") }},
            true
        ) as is_first
    from events
    window visits as (partition by marketplace, visitor_id order by event_at, event_id)
),

numbered as (
    select
        *,
        count(*) filter (where is_first) over visits as visit
    from starts
    window visits as (partition by marketplace, visitor_id order by event_at, event_id)
)

select
    marketplace,
    visitor_id,
    event_id,
    customer_id,
    event_type,
    product_id,
    event_at,
    known_at,
    visit,
    md5(
        marketplace || '|' || visitor_id || '|' || first_value(event_id) over (
            partition by marketplace, visitor_id, visit order by event_at, event_id
        )
    ) as session_id
from numbered
