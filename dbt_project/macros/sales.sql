{#- Whether an order of this status is a sale: what was canceled or could not be had is none; what came back was one. -#}
{% macro is_sale(status) -%}
    {{ status }} not in ('canceled', 'unavailable')
{%- endmacro %}

{#- The first day of a day's month. -#}
{% macro month_of(day) -%}
    date_trunc('month', {{ day }})::date
{%- endmacro %}

{#- The first day of the month that is `n` months after the one that begins on `month`. -#}
{% macro months_after(month, n) -%}
    ({{ month }} + interval '1 month' * ({{ n }}))::date
{%- endmacro %}

{#- A share as an exact number, null where there is nothing to share: the same digits in every rebuild. -#}
{% macro share(part, whole) -%}
    round(({{ part }})::numeric / nullif({{ whole }}, 0), 6)::numeric(18, 6)
{%- endmacro %}

{#-
  The columns of a vendor's rate: as it is, drawn towards that of the marketplace, and the prior that draws it. `measure`
  is the alias of the prior; the posterior's mean is (events + strength * rate) / (trials + strength).
-#}
{% macro shrunk_rate(measure, events, trials) -%}
    {{ share("vendors." ~ events, "vendors." ~ trials) }} as {{ measure }}_rate,
    {{ share(
        "vendors." ~ events ~ " + " ~ measure ~ ".strength * " ~ measure ~ ".rate",
        "vendors." ~ trials ~ " + " ~ measure ~ ".strength"
    ) }} as shrunk_{{ measure }}_rate,
    {{ measure }}.rate::numeric(18, 6) as prior_{{ measure }}_rate,
    {{ measure }}.strength::numeric(18, 6) as prior_{{ measure }}_strength
{%- endmacro %}

{#-
  The newest version of each of an order's parts that is still there, of the touched orders. What belongs to an order that
  its source removed is gone with it. `versions` is a relation or a select in parentheses.
-#}
{% macro still_there(versions, part) -%}
    with told as (
        select *
        from {{ versions }} as told
        where {{ where_touched("contents", "told") }}
    ),

    removed as (
        select *
        from {{ ref("int_orders__deleted") }}
        where {{ where_touched("contents") }}
    )

    select newest.*
    from ({{ newest("told", ["marketplace", "order_id", part]) }}) as newest
    left join removed on newest.marketplace = removed.marketplace and newest.order_id = removed.order_id
    where newest.is_deleted is not true and removed.order_id is null
{%- endmacro %}

{#-
  A pre-hook for a model whose CTEs are joined with each other. The planner has no statistics of a CTE, expects a row or
  two, and chooses a nested loop that compares everything with everything.
-#}
{% macro join_by_hash() -%}
    set local enable_nestloop = off
{%- endmacro %}
