{{ config(
    materialized="incremental",
    incremental_strategy="stale",
    stale=["customer_id"],
    pre_hook="{{ find_stale(['customer_id'], stale_customers()) }}",
    indexes=[{"columns": ["customer_id"], "unique": true}],
) }}

with customers as (
    select every_customer.*
    from {{ ref("dim_customer") }} as every_customer
    where {{ where_stale(["customer_id"], "every_customer") }}
),

their_orders as materialized (
    -- Once, and not by each of what follows.
    select
        orders.marketplace,
        orders.order_id,
        orders.customer_id,
        orders.ordered_on,
        orders.item_reporting_amount,
        {{ is_sale("orders.status") }} as is_sale
    from customers
    inner join {{ ref("fact_order") }} as orders on customers.customer_id = orders.customer_id
),

orders as (
    select
        customer_id,
        min({{ month_of("ordered_on") }}) filter (where is_sale) as cohort_month,
        (count(*) filter (where not is_sale))::integer as n_canceled_orders,
        sum(item_reporting_amount) filter (where is_sale) as item_reporting_amount
    from their_orders
    group by customer_id
),

items as (
    select
        orders.customer_id,
        count(distinct items.marketplace || ' ' || items.product_id)::integer as n_products
    from their_orders as orders
    inner join {{ ref("fact_order_item") }} as items
        on orders.marketplace = items.marketplace and orders.order_id = items.order_id
    where orders.is_sale
    group by orders.customer_id
),

refunds as (
    select
        orders.customer_id,
        (count(*) filter (where refunds.kind = 'return'))::integer as n_returns,
        sum(refunds.refund_reporting_amount) filter (where refunds.kind <> 'cancellation') as refund_reporting_amount
    from their_orders as orders
    inner join {{ ref("fact_refund") }} as refunds
        on orders.marketplace = refunds.marketplace and orders.order_id = refunds.order_id
    group by orders.customer_id
),

coupons as (
    select
        orders.customer_id,
        count(*)::integer as n_coupons
    from their_orders as orders
    inner join {{ ref("fact_campaign_touch") }} as touches
        on orders.marketplace = touches.marketplace and orders.order_id = touches.order_id
    where touches.kind = 'coupon'
    group by orders.customer_id
),

signals as (
    {{ customer_signals() }}
)

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
    {{ reporting_currency() }} as reporting_currency,
    coalesce(coupons.n_coupons, 0) as n_coupons,
    coalesce(signals.n_sessions, 0) as n_sessions,
    signals.last_session_on,
    coalesce(signals.n_reviews, 0) as n_reviews,
    signals.average_rating,
    signals.rfm_month_on,
    signals.recency_quintile,
    signals.frequency_quintile,
    signals.monetary_quintile,
    signals.segment,
    signals.segment_before
from customers
left join orders on customers.customer_id = orders.customer_id
left join items on customers.customer_id = items.customer_id
left join refunds on customers.customer_id = refunds.customer_id
left join coupons on customers.customer_id = coupons.customer_id
left join signals on customers.customer_id = signals.customer_id
