{{ config(indexes=[{"columns": ["touch_id", "marketplace"], "unique": true}]) }}

with coupon_uses as (
    {{ union_sources("coupon_uses") }}
),

touches as (
    select
        'session:' || session_id as touch_id,
        marketplace,
        'session' as kind,
        campaign,
        visitor_id,
        customer_id,
        session_id,
        null as order_id,
        started_at as touched_at,
        known_at
    from {{ ref("fact_session") }}
    where not is_bot
    union all
    select
        'coupon:' || coupon_use_id as touch_id,
        marketplace,
        'coupon' as kind,
        -- A coupon that no campaign is named for is its own.
        coalesce(campaign, coupon_code) as campaign,
        null as visitor_id,
        customer_id,
        null as session_id,
        order_id,
        used_at as touched_at,
        known_at
    from ({{ newest("coupon_uses", ["marketplace", "coupon_use_id"]) }}) as newest
    where is_deleted is not true
)

select
    touch_id,
    marketplace,
    kind,
    campaign,
    visitor_id,
    customer_id,
    session_id,
    order_id,
    touched_at,
    {{ utc_day("touched_at") }} as touched_on,
    case
        when customer_id is not null
            then row_number() over (partition by customer_id order by touched_at, marketplace, touch_id)::integer
    end as nth_touch,
    known_at
from touches
where campaign is not null
