{{ config(indexes=[{"columns": ["campaign", "marketplace"], "unique": true}]) }}

with seen as (
    select
        marketplace,
        campaign,
        min(event_on) as first_seen_on,
        max(event_on) as last_seen_on,
        (sum(n_sessions) filter (where not is_bot))::integer as n_sessions,
        0 as n_coupons
    from {{ ref("fact_event_day") }}
    where campaign <> ''
    group by marketplace, campaign
    union all
    select
        marketplace,
        campaign,
        min({{ utc_day("touched_at") }}) as first_seen_on,
        max({{ utc_day("touched_at") }}) as last_seen_on,
        0 as n_sessions,
        count(*)::integer as n_coupons
    from {{ ref("fact_campaign_touch") }}
    where kind = 'coupon' and campaign is not null
    group by marketplace, campaign
)

select
    marketplace,
    campaign,
    min(first_seen_on) as first_seen_on,
    max(last_seen_on) as last_seen_on,
    coalesce(sum(n_sessions), 0)::integer as n_sessions,
    sum(n_coupons)::integer as n_coupons
from seen
group by marketplace, campaign
