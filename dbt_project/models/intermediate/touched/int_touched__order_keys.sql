-- In the order of the indexes that orders are looked up by, so that neighbours among the keys are neighbours on the
-- pages, and unique, so that nothing is sorted out before the lookups: that is half of their time.
{{ config(indexes=[
    {"columns": ["order_id", "marketplace"], "unique": true},
    {"columns": ["marketplace", "order_number"], "unique": true},
]) }}

select
    marketplace,
    order_id,
    {{ as_number("order_id") }} as order_number,
    bool_or(days_back is null) as is_changed,
    min(days_back) as days_back,
    -- Lists that differ are of several builds, all but the last of which failed.
    case
        when bool_and(told_by is not null) filter (where days_back is null) and min(told_by::text) = max(told_by::text)
            then min(told_by::text)::jsonb
    end as told_by
from {{ ref("int_touched__orders") }}
group by marketplace, order_id
order by order_id, marketplace
