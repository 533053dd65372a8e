{% test money_is_exact(model, columns) %}
{#- Money survives numeric(18,4): contracts do not check precision, and the insert would round in silence. -#}
select *
from {{ touched_rows(model) }} as rows_built
where
    {%- for column in columns %}
    {{ "or" if not loop.first }} {{ column }} <> round({{ column }}, 4)
    or abs({{ column }}) >= 1e14
    {%- endfor %}
{% endtest %}
