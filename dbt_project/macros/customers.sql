{#-
  What the customers' report takes from things that change without a touched order: sessions, reviews, the segment.
  One row for each customer of any of them, or of the stale ones.
-#}
{% macro customer_signal_columns() -%}
    {{ return([
        "n_sessions", "last_session_on", "n_reviews", "average_rating", "rfm_month_on", "recency_quintile",
        "frequency_quintile", "monetary_quintile", "segment", "segment_before",
    ]) }}
{%- endmacro %}

{% macro customer_signals(of_stale=false) -%}
    {%- set narrowed = "and " ~ where_stale(["customer_id"], "told") if of_stale -%}
    select
        customer_id,
        coalesce(sessions.n_sessions, 0)::integer as n_sessions,
        sessions.last_session_on,
        coalesce(reviews.n_reviews, 0)::integer as n_reviews,
        reviews.average_rating,
        segments.month_on as rfm_month_on,
        segments.recency_quintile,
        segments.frequency_quintile,
        segments.monetary_quintile,
        segments.segment,
        segments.segment_before
    from (
        select
            customer_id,
            count(*) as n_sessions,
            max(session_on) as last_session_on
        from {{ ref("fact_session") }} as told
        where not is_bot and customer_id is not null {{ narrowed }}
        group by customer_id
    ) as sessions
    full join (
        select
            customer_id,
            count(*) as n_reviews,
            round(avg(rating), 2)::numeric(4, 2) as average_rating
        from {{ ref("fact_review") }} as told
        where customer_id is not null {{ narrowed }}
        group by customer_id
    ) as reviews using (customer_id)
    full join (
        select *
        from {{ ref("rpt_rfm_month") }} as told
        where month_on = (select max(month_on) from {{ ref("rpt_rfm_month") }}) {{ narrowed }}
    ) as segments using (customer_id)
{%- endmacro %}

{#- The customers whose row is to be made anew: those of other sales, those who live elsewhere, are new or are gone. -#}
{% macro stale_buyers() -%}
    select customer_id
    from {{ touched("buyers") }} as touched
    union all
    select touched.customer_id
    from {{ touched("customers") }} as touched
    left join {{ ref("int_customers__current") }} as told using (customer_id)
    left join {{ this }} as there using (customer_id)
    where
        there.customer_id is null
        or there.n_marketplaces = 0
        or (told.region, told.region_marketplace) is distinct from (there.region, there.region_marketplace)
{%- endmacro %}

{#-
  The customers whose report is to be made anew: those of other sales, of orders with other refunds or coupons, of other
  signals, whose row in dim_customer is another, is new or is gone.
-#}
{% macro stale_customers() -%}
    select customer_id
    from {{ touched("buyers") }} as touched
    union all
    select unnest(array[touched.customer_id_before, orders.customer_id, coupons.customer_id])
    from {{ ref("int_touched__contents") }} as touched
    left join {{ ref("fact_order") }} as orders using (marketplace, order_id)
    left join {{ ref("fact_campaign_touch") }} as coupons using (marketplace, order_id)
    left join (
        {{ digests_of_orders("extras", ref("int_touched__contents"), {
            "fact_refund": ref("fact_refund"),
            "fact_campaign_touch": ref("fact_campaign_touch"),
        }) }}
    ) as extras using (marketplace, order_id)
    where touched.extras_before is distinct from extras.digest
    union all
    select coalesce(there.customer_id, customers.customer_id)
    from {{ ref("dim_customer") }} as customers
    full join {{ this }} as there on customers.customer_id = there.customer_id
    left join ({{ customer_signals() }}) as signals on there.customer_id = signals.customer_id
    where
        customers.n_orders is null
        or there.n_orders is null
        or (customers.region, customers.marketplaces) is distinct from (there.region, there.marketplaces)
        {%- for column in customer_signal_columns() %}
        {%- if column in ("n_sessions", "n_reviews") %}
        or coalesce(signals.{{ column }}, 0) <> there.{{ column }}
        {%- else %}
        or signals.{{ column }} is distinct from there.{{ column }}
        {%- endif %}
        {%- endfor %}
{%- endmacro %}
