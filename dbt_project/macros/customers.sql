{#-
  What the customers' report takes from things that change without a touched order: sessions and reviews. One row for each
  customer of any of them, or of the stale ones.
-#}
{% macro customer_visits(of_stale=false) -%}
    {%- set narrowed = "and " ~ where_stale(["customer_id"], "told") if of_stale -%}
    select
        customer_id,
        coalesce(sessions.n_sessions, 0)::integer as n_sessions,
        sessions.last_session_on,
        coalesce(reviews.n_reviews, 0)::integer as n_reviews,
        reviews.average_rating
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
  sessions and reviews, and those whose row in dim_customer or whose segment was noted as another one (note_differing)
  since the last publication. A new month is another segment of everybody.
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
        {{ digests_of_orders("extras", ref("int_touched__content_keys"), {
            "fact_refund": ref("fact_refund"),
            "fact_campaign_touch": ref("fact_campaign_touch"),
        }) }}
    ) as extras using (marketplace, order_id)
    where touched.extras_before is distinct from extras.digest
    union all
    select noted.scope ->> 'customer_id' as customer_id
    from ops.unpublished as noted
    where
        noted.scope is not null
        and (
            noted.mart = '{{ ref("dim_customer").identifier }}'
            or (
                noted.mart = '{{ ref("rpt_rfm_month").identifier }}'
                and (noted.scope ->> 'month_on')::date = (select max(month_on) from {{ ref("rpt_rfm_month") }})
            )
        )
    union all
    select customer_id
    from {{ ref("dim_customer") }}
    where
        (select max(month_on) from {{ ref("rpt_rfm_month") }})
        is distinct from (select max(rfm_month_on) from {{ this }})
    union all
    select customer_id
    from ({{ customer_visits() }}) as visits
    full join (
        select *
        from {{ this }}
        where n_sessions > 0 or n_reviews > 0
    ) as there using (customer_id)
    where
        (visits.n_sessions, visits.last_session_on, visits.n_reviews, visits.average_rating)
        is distinct from (there.n_sessions, there.last_session_on, there.n_reviews, there.average_rating)
{%- endmacro %}
