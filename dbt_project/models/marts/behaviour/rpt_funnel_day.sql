-- A closed funnel: a session is in a step when it is in the steps before.
{{ config(
    materialized="incremental",
    touched="session_days",
    touched_columns=["marketplace", "date_on"],
    indexes=[{"columns": ["date_on", "marketplace", "campaign"], "unique": true}],
) }}

with steps as (
    select
        marketplace,
        session_on as date_on,
        coalesce(campaign, '') as campaign,
        n_product_views > 0 as is_viewed,
        n_product_views > 0 and n_cart_adds > 0 as is_in_cart,
        n_product_views > 0 and n_cart_adds > 0 and n_purchases > 0 as is_purchased,
        n_purchases > 0 as is_any_purchase
    from {{ ref("fact_session") }}
    where not is_bot and {{ where_touched("session_days") }}
),

counted as (
    select
        date_on,
        marketplace,
        campaign,
        count(*)::integer as n_sessions,
        (count(*) filter (where is_viewed))::integer as n_view_sessions,
        (count(*) filter (where is_in_cart))::integer as n_cart_sessions,
        (count(*) filter (where is_purchased))::integer as n_purchase_sessions,
        (count(*) filter (where is_any_purchase and not is_purchased))::integer as n_other_purchase_sessions
    from steps
    group by date_on, marketplace, campaign
)

select
    *,
    {{ share("n_view_sessions", "n_sessions") }} as view_share,
    {{ share("n_cart_sessions", "n_view_sessions") }} as cart_share,
    {{ share("n_purchase_sessions", "n_cart_sessions") }} as purchase_share,
    {{ share("n_purchase_sessions", "n_sessions") }} as conversion_share
from counted
