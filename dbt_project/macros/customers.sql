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

{#- The months in which a customer has another row in int_customers__months than before. -#}
{% macro touched_months_of_customers() -%}
    select key::date as month_on
    from ops.touched_work
    where thing = 'active_months'
{%- endmacro %}

{#-
  The customers whose report may be another one: those of other sales, of orders with other refunds or coupons, of other
  sessions and reviews, those whose row in dim_customer or whose segment was noted as another one (note_differing) since
  the last publication. A new month is another segment of everybody. `is_made_anew` is false of those who only have
  another segment.
-#}
{% macro stale_customers() -%}
    select
        customer_id,
        bool_or(is_made_anew) as is_made_anew
    from (
        select
            customer_id,
            true as is_made_anew
        from {{ touched("buyers") }} as touched
        union all
        select
            unnest(array[touched.customer_id_before, orders.customer_id, coupons.customer_id]),
            true
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
        select
            key,
            true
        from ops.touched_work
        where thing = 'visitors'
        union all
        select
            scope ->> 'customer_id',
            true
        from ops.unpublished
        where mart = '{{ ref("dim_customer").identifier }}' and scope is not null
        union all
        select
            scope ->> 'customer_id',
            false
        from ops.unpublished
        where
            mart = '{{ ref("rpt_rfm_month").identifier }}'
            and scope is not null
            and (scope ->> 'month_on')::date = (select max(month_on) from {{ ref("rpt_rfm_month") }})
        union all
        select
            customer_id,
            false
        from {{ ref("dim_customer") }}
        where
            (select max(month_on) from {{ ref("rpt_rfm_month") }})
            is distinct from (select max(rfm_month_on) from {{ this }})
    ) as told
    group by customer_id
{%- endmacro %}
