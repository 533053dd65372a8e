-- RFM after Hughes (Strategic Database Marketing, 1994): quintiles of recency, frequency and amount over twelve months,
-- and the names that the field gives to the cells of recency x frequency.
{{ config(
    materialized="incremental",
    incremental_strategy="stale",
    stale=["month_on"],
    pre_hook="{{ find_stale(['month_on'], stale_rfm_months()) }}",
    indexes=[{"columns": ["customer_id", "month_on"], "unique": true}, {"columns": ["month_on"]}],
) }}

with months as (
    select
        every_month.month_on,
        {{ "there.month_on is null" if is_incremental() else "true" }} as is_new
    from ({{ rfm_months() }}) as every_month
    {% if is_incremental() -%}
        left join ({{ months_of(this) }}) as there on every_month.month_on = there.month_on
    {%- endif %}
    where {{ where_stale(["month_on"], "every_month") }}
),

activity as (
    {{ rfm_activity() }}
),

kept as (
    {{ rfm_kept() }}
),

active as (
    select
        months.month_on,
        activity.customer_id,
        max(activity.last_order_on) as last_order_on,
        sum(activity.n_orders)::integer as n_orders,
        coalesce(sum(activity.item_reporting_amount), 0) as item_reporting_amount
    from months
    inner join activity
        on
            months.month_on >= activity.month_on
            and {{ months_after("months.month_on", -12) }} < activity.month_on
    group by months.month_on, activity.customer_id
    union all
    select
        month_on,
        customer_id,
        {{ months_after("month_on", 1) }} - 1 - recency_days as last_order_on,
        n_orders,
        item_reporting_amount
    from kept
    where recency_days is not null
),

scored as (
    -- What ties is told apart by the other measures, then by the key: quintiles are equally large and always the same.
    select
        *,
        ntile(5) over (
            partition by month_on order by last_order_on, n_orders, item_reporting_amount, customer_id
        ) as recency_quintile,
        ntile(5) over (
            partition by month_on order by n_orders, item_reporting_amount, last_order_on, customer_id
        ) as frequency_quintile,
        ntile(5) over (
            partition by month_on order by item_reporting_amount, n_orders, last_order_on, customer_id
        ) as monetary_quintile
    from active
),

lapsed as (
    -- The last order is twelve months back: this is the month in which the customer falls out.
    select distinct
        months.month_on,
        activity.customer_id
    from months
    inner join activity on {{ months_after("months.month_on", -12) }} = activity.month_on
    left join active
        on months.month_on = active.month_on and activity.customer_id = active.customer_id
    where active.customer_id is null
    union all
    select
        month_on,
        customer_id
    from kept
    where recency_days is null
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
    union all
    select
        customer_id,
        month_on,
        null as recency_days,
        0 as n_orders,
        0 as item_reporting_amount,
        null as recency_quintile,
        null as frequency_quintile,
        null as monetary_quintile,
        'lapsed' as segment
    from lapsed
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
            months.month_on,
            there.segment
        from {{ this }} as there
        inner join months on there.month_on = {{ months_after("months.month_on", -1) }}
        where there.month_on not in (select remade.month_on from months as remade)
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
{% if not is_incremental() -%}
    -- A night reads two months of it: they are then a few pages next to each other, not a row of each page.
    order by segments.month_on
{%- endif %}
