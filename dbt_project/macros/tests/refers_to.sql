{% test refers_to(model, columns, to, to_columns=none, thing=none) %}
{#-
  Each combination of non-null columns exists in `to`: relationships for keys of several columns. Of a model that is built
  whole each night `thing` names the keys that alone can have come or have lost what they refer to.
-#}
{%- set to_columns = to_columns or columns %}
select distinct {% for column in columns %}child.{{ column }}{{ ", " if not loop.last }}{% endfor %}
from {{ touched_rows(model, thing) }} as child
where
    {%- for column in columns %}
    child.{{ column }} is not null and
    {%- endfor %}
    not exists (
        select 1
        from {{ rows_referred_to(to, columns, to_columns, thing) }} as parent
        where
            {%- for column in columns %}
            {{ "and" if not loop.first }} parent.{{ to_columns[loop.index0] }} = child.{{ column }}
            {%- endfor %}
    )
{% endtest %}

{#-
  The rows of `to` that a touched row can refer to: those of the same key, where both models are built by it, or the child
  by `contents`, which are orders.
-#}
{% macro rows_referred_to(to, columns, to_columns, by=none) -%}
    {%- set child = tested_model() -%}
    {%- set parents = graph.nodes.values() | selectattr("relation_name", "equalto", to | string) | list if execute else [] -%}
    {%- set by = by or (child.config.get("touched") if child else none) -%}
    {%- set thing = parents[0].config.get("touched") if parents else none -%}
    {%- set key = columns_in(thing, parents[0].columns) if thing else [] -%}
    {%- if thing and (by == thing or (by == "contents" and thing == "orders")) and columns == to_columns
        and not key | reject("in", columns) | list -%}
        {{ touched_rows(to, by) }}
    {%- else -%}
        {{ to }}
    {%- endif -%}
{%- endmacro %}
