{% test known_by_its_day(model, columns) %}
{#- No future: nothing a version shows happened after the end of the UTC day on which it became known. -#}
select *
from {{ touched_rows(model) }} as rows_built
where
    {%- for column in columns %}
    {{ "or" if not loop.first }} {{ column }} >= (known_on + 1)::timestamp at time zone 'UTC'
    {%- endfor %}
{% endtest %}
