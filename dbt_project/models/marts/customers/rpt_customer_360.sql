{{ config(
    materialized="incremental",
    incremental_strategy="stale",
    stale=["customer_id"],
    pre_hook="{{ find_stale(['customer_id', 'is_made_anew'], stale_customers()) }}",
    indexes=[{"columns": ["customer_id"], "unique": true}],
) }}

with customers as (
    select every_customer.*
    from {{ ref("dim_customer") }} as every_customer
    where {{ where_stale(["customer_id"], "every_customer", "is_made_anew") }}
),

months as (
    select every_month.*
    from {{ ref("int_customers__months") }} as every_month
    where {{ where_stale(["customer_id"], "every_month", "is_made_anew") }}
),

orders as (
    select
        customer_id,
        min(all_cohort_month) as cohort_month,
        sum(n_canceled_orders)::integer as n_canceled_orders,
        sum(item_reporting_amount) as item_reporting_amount
    from months
    group by customer_id
),

items as (
    select
        months.customer_id,
        count(distinct months.marketplace || ' ' || products.product_id)::integer as n_products
    from months
    cross join lateral jsonb_array_elements_text(months.products) as products (product_id)
    group by months.customer_id
),

refunds as (
    select
        customer_id,
        (count(*) filter (where kind = 'return'))::integer as n_returns,
        sum(refund_reporting_amount) filter (where kind <> 'cancellation') as refund_reporting_amount
    from {{ ref("fact_refund") }} as every_refund
    where every_refund.customer_id is not null and {{ where_stale(["customer_id"], "every_refund", "is_made_anew") }}
    group by customer_id
),

coupons as (
    select
        customer_id,
        count(*)::integer as n_coupons
    from {{ ref("fact_campaign_touch") }} as touches
    where
        kind = 'coupon'
        and touches.customer_id is not null
        and {{ where_stale(["customer_id"], "touches", "is_made_anew") }}
    group by customer_id
),

sessions as (
    select
        customer_id,
        count(*)::integer as n_sessions,
        max(session_on) as last_session_on
    from {{ ref("fact_session") }} as every_session
    where
        not is_bot
        and every_session.customer_id is not null
        and {{ where_stale(["customer_id"], "every_session", "is_made_anew") }}
    group by customer_id
),

reviews as (
    select
        customer_id,
        count(*)::integer as n_reviews,
        round(avg(rating), 2)::numeric(4, 2) as average_rating
    from {{ ref("fact_review") }} as every_review
    where
        every_review.customer_id is not null
        and {{ where_stale(["customer_id"], "every_review", "is_made_anew") }}
    group by customer_id
),

segments as (
    select every_month.*
    from {{ ref("rpt_rfm_month") }} as every_month
    where
        every_month.month_on = (select max(newest.month_on) from {{ ref("rpt_rfm_month") }} as newest)
        and {{ where_stale(["customer_id"], "every_month") }}
),

reports as (
    select
        customers.customer_id,
        customers.region,
        customers.marketplaces,
        customers.n_marketplaces,
        orders.cohort_month,
        customers.first_order_on,
        customers.last_order_on,
        customers.n_orders,
        coalesce(orders.n_canceled_orders, 0) as n_canceled_orders,
        coalesce(items.n_products, 0) as n_products,
        coalesce(orders.item_reporting_amount, 0) as item_reporting_amount,
        round(orders.item_reporting_amount / nullif(customers.n_orders, 0), 4) as average_order_reporting_amount,
        coalesce(refunds.n_returns, 0) as n_returns,
        coalesce(refunds.refund_reporting_amount, 0) as refund_reporting_amount,
        coalesce(coupons.n_coupons, 0) as n_coupons,
        coalesce(sessions.n_sessions, 0) as n_sessions,
        sessions.last_session_on,
        coalesce(reviews.n_reviews, 0) as n_reviews,
        reviews.average_rating
    from customers
    left join orders on customers.customer_id = orders.customer_id
    left join items on customers.customer_id = items.customer_id
    left join refunds on customers.customer_id = refunds.customer_id
    left join coupons on customers.customer_id = coupons.customer_id
    left join sessions on customers.customer_id = sessions.customer_id
    left join reviews on customers.customer_id = reviews.customer_id
    {% if is_incremental() -%}
        -- Of whom only the segment is another one, the rest is as it was.
        union all
        select
            there.customer_id,
            there.region,
            there.marketplaces,
            there.n_marketplaces,
            there.cohort_month,
            there.first_order_on,
            there.last_order_on,
            there.n_orders,
            there.n_canceled_orders,
            there.n_products,
            there.item_reporting_amount,
            there.average_order_reporting_amount,
            there.n_returns,
            there.refund_reporting_amount,
            there.n_coupons,
            there.n_sessions,
            there.last_session_on,
            there.n_reviews,
            there.average_rating
        from {{ this }} as there
        where {{ where_stale(["customer_id"], "there", "not is_made_anew") }}
    {%- endif %}
)

select
    reports.*,
    {{ reporting_currency() }} as reporting_currency,
    segments.month_on as rfm_month_on,
    segments.recency_quintile,
    segments.frequency_quintile,
    segments.monetary_quintile,
    segments.segment,
    segments.segment_before
from reports
left join segments on reports.customer_id = segments.customer_id
