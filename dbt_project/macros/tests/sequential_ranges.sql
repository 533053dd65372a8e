{% test sequential_ranges(model, keys, valid_from="valid_from", valid_to="valid_to", is_current=none, may_end=false) %}
{#-
  A history (SCD type 2): per key, ranges of valid_from (inclusive) to valid_to (exclusive, null: to this day) that follow
  each other without a gap or an overlap, the last of them open. `is_current` names a column that is true for the open
  range and for no other. With `may_end` a thing may be gone: the last range may have an end, and there may be a gap
  where it came back. Returns the ranges that break a rule, and which one.
-#}
with ranges as (
    select
        *,
        lead({{ valid_from }}) over (
            partition by {{ keys | join(", ") }} order by {{ valid_from }}, {{ valid_to }} nulls last
        ) as next_valid_from
    from {{ rows_of_noted_keys(model, keys) }} as every_range
),

judged as (
    select
        *,
        case
            when {{ valid_from }} is null then 'has no begin'
            when {{ valid_to }} <= {{ valid_from }} then 'is empty'
            when {{ valid_to }} is null and next_valid_from is not null then 'is open, and another one follows'
            when {{ valid_to }} > next_valid_from then 'overlaps the next one'
            {%- if not may_end %}
            when {{ valid_to }} < next_valid_from then 'leaves a gap to the next one'
            when {{ valid_to }} is not null and next_valid_from is null then 'is the last one and not open'
            {%- endif %}
            {%- if is_current %}
            when {{ is_current }} is distinct from ({{ valid_to }} is null) then '{{ is_current }} is wrong'
            {%- endif %}
        end as problem
    from ranges
)

select *
from judged
where problem is not null
{% endtest %}

{#- All rows of the keys of which a night by keys noted a row as another one (note_differing); else all rows. -#}
{% macro rows_of_noted_keys(relation, keys) -%}
    {%- if is_noted_mart(relation) -%}
        (
            select *
            from {{ relation }}
            where
                ({{ keys | join(", ") }}) in (
                    select {% for key in keys %}noted.scope ->> '{{ key }}'{{ ", " if not loop.last }}{% endfor %}
                    from ops.unpublished as noted
                    where noted.mart = '{{ relation.identifier }}' and noted.scope is not null
                )
        )
    {%- else -%}
        {{ relation }}
    {%- endif -%}
{%- endmacro %}
