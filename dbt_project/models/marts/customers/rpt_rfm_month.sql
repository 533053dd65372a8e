-- RFM after Hughes (Strategic Database Marketing, 1994): quintiles of recency, frequency and amount over twelve months,
-- and the names that the field gives to the cells of recency x frequency.
{{ config(
    materialized="incremental",
    incremental_strategy="stale",
    stale=["month_on", "customer_id"],
    pre_hook=["{{ score_rfm_months() }}", "{{ find_stale(['month_on', 'customer_id'], stale_rfm_rows()) }}"],
    indexes=[{"columns": ["month_on", "customer_id"], "unique": true}],
    meta={"bi_indexes": [["customer_id", "month_on"]]},
) }}

with scored as (
    {% if is_incremental() -%}
        select *
        from pg_temp.scored
        where customer_id in (select stale.customer_id from pg_temp.stale)
    {%- else -%}
        {{ rfm_scored() }}
    {%- endif %}
),

segments as (
    select
        customer_id,
        month_on,
        {{ months_after("month_on", 1) }} - 1 - last_order_on as recency_days,
        n_orders,
        item_reporting_amount,
        recency_quintile,
        frequency_quintile,
        monetary_quintile,
        case
            when last_order_on is null then 'lapsed'
            when recency_quintile = 5 and frequency_quintile >= 4 then 'champions'
            when recency_quintile >= 3 and frequency_quintile >= 4 then 'loyal'
            when recency_quintile >= 4 and frequency_quintile >= 2 then 'potential loyalists'
            when recency_quintile = 5 then 'new'
            when recency_quintile = 4 then 'promising'
            when recency_quintile = 3 and frequency_quintile = 3 then 'need attention'
            when recency_quintile = 3 then 'about to sleep'
            when frequency_quintile = 5 then 'cannot lose'
            when frequency_quintile >= 3 then 'at risk'
            else 'hibernating'
        end as segment
    from scored
),

month_before as (
    select
        customer_id,
        {{ months_after("month_on", 1) }} as month_on,
        segment
    from segments
    {% if is_incremental() -%}
        union all
        select
            there.customer_id,
            stale.month_on,
            there.segment
        from {{ this }} as there
        inner join pg_temp.stale
            on
                there.month_on = {{ months_after("stale.month_on", -1) }}
                and there.customer_id = stale.customer_id
        where there.month_on not in (select stale_months.month_on from pg_temp.stale_months)
    {%- endif %}
)

select
    segments.customer_id,
    segments.month_on,
    segments.recency_days,
    segments.n_orders,
    segments.item_reporting_amount,
    {{ reporting_currency() }} as reporting_currency,
    segments.recency_quintile,
    segments.frequency_quintile,
    segments.monetary_quintile,
    segments.segment,
    month_before.segment as segment_before
from segments
left join month_before
    on segments.customer_id = month_before.customer_id and segments.month_on = month_before.month_on
where {{ where_stale(["month_on", "customer_id"], "segments") }}
{% if not is_incremental() -%}
    -- A night reads two months of it: they are then a few pages next to each other, not a row of each page.
    order by segments.month_on
{%- endif %}
