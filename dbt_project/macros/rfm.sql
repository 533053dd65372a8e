{#-
  Every month of the RFM report, from the first with an order to the newest. By an array, of which the planner expects
  ten months: of generate_series it expects a thousand, and sorts for them.
-#}
{% macro rfm_months() -%}
    select month::date as month_on
    from unnest(array(
        select generate_series(
            (select min(month_on) from {{ ref("int_customers__months") }} where n_orders > 0)::timestamp,
            (select max(month_on) from {{ ref("int_customers__months") }} where n_orders > 0)::timestamp,
            interval '1 month'
        )
    )) as months (month)
{%- endmacro %}

{#-
  The months that the RFM report has to make anew: an order counts for twelve months, in the one after its customer
  lapses, and that is the `segment_before` of one more; a month that is new, and one that is not there any more because
  its orders are gone.
-#}
{% macro stale_rfm_months() -%}
    select {{ months_after("touched.month_on", "n") }} as month_on
    from {{ touched("months") }} as touched
    cross join generate_series(0, 13) as n
    union all
    select coalesce(there.month_on, every_month.month_on) as month_on
    from ({{ rfm_months() }}) as every_month
    full join ({{ months_of(this) }}) as there using (month_on)
    where there.month_on is null or every_month.month_on is null
{%- endmacro %}

{#-
  Before an incremental build of the RFM report: the months that may differ in pg_temp.stale_months, all of their
  customers with their quintiles in pg_temp.scored. Of these only the rows that are others go any further.
-#}
{% macro score_rfm_months() -%}
    {#- Named outside the condition, so that parsing sees what comes first. -#}
    {%- set stale_months, scored = stale_rfm_months(), rfm_scored() -%}
    {%- if is_incremental() -%}
        drop table if exists pg_temp.stale_months, pg_temp.scored;
        create temporary table stale_months on commit drop as
        select distinct month_on from ({{ stale_months }}) as found;
        analyze pg_temp.stale_months;
        create temporary table scored on commit drop as
        {{ scored }};
        analyze pg_temp.scored;
    {%- endif -%}
{%- endmacro %}

{#-
  The rows of the report that may be others: of other quintiles, those a month later (`segment_before`), of whoever has
  another sale and may be in a month no more, and of months that are gone.
-#}
{% macro stale_rfm_rows() -%}
    select
        {{ months_after("scored.month_on", "later.n") }} as month_on,
        scored.customer_id
    from pg_temp.scored
    cross join (values (0), (1)) as later (n)
    where scored.is_other
    union all
    select
        there.month_on,
        touched.customer_id
    from ({{ months_of(this) }}) as there
    inner join pg_temp.stale_months using (month_on)
    cross join {{ touched("buyers") }} as touched
    union all
    select
        month_on,
        customer_id
    from {{ this }}
    where
        month_on in (select stale_months.month_on from pg_temp.stale_months)
        and month_on not in (select every_month.month_on from ({{ rfm_months() }}) as every_month)
{%- endmacro %}

{#-
  Select of customers with their quintiles in each month that is made anew, `is_other` where these are not what the report
  has. A new month is made of what everybody bought. In the others whoever has no other sale stays as they are (`kept`):
  the sums of twelve months of everybody cost more than their quintiles.
-#}
{% macro rfm_scored() -%}
    with months as (
        select
            every_month.month_on,
            {{ "there.month_on is null" if is_incremental() else "true" }} as is_new
        from ({{ rfm_months() }}) as every_month
        {% if is_incremental() -%}
            inner join pg_temp.stale_months using (month_on)
            left join ({{ months_of(this) }}) as there using (month_on)
        {%- endif %}
    ),

    activity as (
        select bought.*
        from {{ ref("int_customers__months") }} as bought
        where
            bought.n_orders > 0 and {{ is_any_month_new() }}
        {% if is_incremental() -%}
            -- Not by `or`, for which every row would be read.
            union all
            select bought.*
            from {{ ref("int_customers__months") }} as bought
            where bought.n_orders > 0 and not {{ is_any_month_new() }} and {{ where_touched("buyers", "bought") }}
        {%- endif %}
    ),

    summed as (
        select
            months.month_on,
            activity.customer_id,
            max(activity.last_order_on) as last_order_on,
            sum(activity.n_orders)::integer as n_orders,
            coalesce(sum(activity.item_reporting_amount), 0) as item_reporting_amount,
            null::integer as cell_before
        from months
        inner join activity
            on
                months.month_on >= activity.month_on
                and {{ months_after("months.month_on", -12) }} < activity.month_on
        group by months.month_on, activity.customer_id
    ),

    {% if is_incremental() -%}
        kept as (
            select
                there.*,
                {{ rfm_cell("there") }} as cell_before
            from {{ this }} as there
            inner join months on there.month_on = months.month_on
            where not {{ is_any_month_new() }} and not {{ where_touched("buyers", "there") }}
        ),
    {%- endif %}

    active as (
        select * from summed
        {% if is_incremental() -%}
            union all
            select
                month_on,
                customer_id,
                {{ months_after("month_on", 1) }} - 1 - recency_days as last_order_on,
                n_orders,
                item_reporting_amount,
                cell_before
            from kept
            where recency_days is not null
        {%- endif %}
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
    )

    select
        month_on,
        customer_id,
        last_order_on,
        n_orders,
        item_reporting_amount,
        recency_quintile,
        frequency_quintile,
        monetary_quintile,
        cell_before is distinct from {{ rfm_cell("scored") }} as is_other
    from scored
    union all
    -- The last order is twelve months back: this is the month in which the customer falls out.
    select distinct
        months.month_on,
        activity.customer_id,
        null::date,
        0,
        0,
        null::integer,
        null::integer,
        null::integer,
        true
    from months
    inner join activity on {{ months_after("months.month_on", -12) }} = activity.month_on
    left join summed
        on months.month_on = summed.month_on and activity.customer_id = summed.customer_id
    where summed.customer_id is null
    {% if is_incremental() -%}
        union all
        select
            month_on,
            customer_id,
            null,
            0,
            0,
            null,
            null,
            null,
            false
        from kept
        where recency_days is null
    {%- endif %}
{%- endmacro %}

{#- The three quintiles as one number. -#}
{% macro rfm_cell(alias) -%}
    {{ alias }}.recency_quintile * 100 + {{ alias }}.frequency_quintile * 10 + {{ alias }}.monetary_quintile
{%- endmacro %}

{% macro is_any_month_new() -%}
    exists (select from months where months.is_new)
{%- endmacro %}

{#- The months that a table has rows of, by one look into its index for each. -#}
{% macro months_of(relation) -%}
    with recursive months as (
        select min(month_on) as month_on
        from {{ relation }}
        union all
        select (select min(there.month_on) from {{ relation }} as there where there.month_on > months.month_on)
        from months
        where months.month_on is not null
    )

    select month_on
    from months
    where month_on is not null
{%- endmacro %}

{#- The months of customers in which their segment became another one, and the day from which on it holds. -#}
{% macro segment_changes() -%}
    select
        customer_id,
        segment,
        {{ months_after("month_on", 1) }} as valid_from
    from {{ ref("rpt_rfm_month") }}
    where
        segment is distinct from segment_before
        and month_on < (select max(month_on) from {{ ref("rpt_rfm_month") }})
        {%- if is_incremental() %}
        and month_on >= {{ months_after(segments_from(), -1) }}
        {%- endif %}
{%- endmacro %}

{#- From which valid_from on the history may differ: the months made anew, and those that were not over yet. -#}
{% macro segments_from() -%}
    (
        select
            coalesce(
                least(
                    {{ months_after("(select min(month_on) from " ~ touched("months") ~ " as touched)", 1) }},
                    (select max(valid_from) from {{ this }})
                ),
                '-infinity'
            )
    )
{%- endmacro %}

{#-
  Before an incremental build of the segments' history: of the customers whose changes are others now, take out the end
  of it, and mend where the range before it ends.
-#}
{% macro forget_changed_segments() -%}
    {%- if is_incremental() -%}
        drop table if exists pg_temp.differing;
        create temporary table differing on commit drop as
        select distinct customer_id
        from ({{ segment_changes() }}) as changes
        full join (select * from {{ this }} where valid_from >= {{ segments_from() }}) as there
            using (customer_id, valid_from, segment)
        where there.is_current is null or changes.customer_id is null;
        {{ note_differing(this, ["customer_id"]) }}
        delete from {{ this }}
        where valid_from >= {{ segments_from() }} and customer_id in (select customer_id from pg_temp.differing);

        update {{ this }} as there
        set valid_to = later.next_on, is_current = later.next_on is null
        from (
            select
                ranges.customer_id,
                ranges.valid_from,
                min(changes.valid_from) as next_on
            from {{ this }} as ranges
            inner join pg_temp.differing on ranges.customer_id = differing.customer_id
            left join ({{ segment_changes() }}) as changes
                on ranges.customer_id = changes.customer_id and ranges.valid_from < changes.valid_from
            where ranges.valid_to is null or ranges.valid_to >= {{ segments_from() }}
            group by ranges.customer_id, ranges.valid_from
        ) as later
        where
            there.customer_id = later.customer_id
            and there.valid_from = later.valid_from
            and there.valid_to is distinct from later.next_on
    {%- endif -%}
{%- endmacro %}
