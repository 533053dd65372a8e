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
  What customers bought, as far as it decides the months that the report makes anew (the CTE `months` of the model). A new
  month is made of what everybody bought. In the others whoever has no other sale stays as they are (rfm_kept): the sums
  of twelve months of everybody cost more than their quintiles.
-#}
{% macro rfm_activity() -%}
    select bought.*
    from {{ ref("int_customers__months") }} as bought
    where
        bought.n_orders > 0 and {{ is_any_month_new() }}
        {%- if is_incremental() %}
    -- Not by `or`, for which every row would be read.
    union all
    select bought.*
    from {{ ref("int_customers__months") }} as bought
    where bought.n_orders > 0 and not {{ is_any_month_new() }} and {{ where_touched("buyers", "bought") }}
        {%- endif %}
{%- endmacro %}

{#- Rows of the report, in the months that it makes anew, of customers whose sums are as they were. -#}
{% macro rfm_kept() -%}
    {%- if is_incremental() -%}
        select
            there.customer_id,
            there.month_on,
            there.recency_days,
            there.n_orders,
            there.item_reporting_amount
        from {{ this }} as there
        inner join months on there.month_on = months.month_on
        where not {{ is_any_month_new() }} and not {{ where_touched("buyers", "there") }}
    {%- else -%}
        select
            customer_id,
            month_on,
            null::integer as recency_days,
            n_orders,
            item_reporting_amount
        from {{ ref("int_customers__months") }}
        where false
    {%- endif -%}
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
