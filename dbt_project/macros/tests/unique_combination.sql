{% test unique_combination(model, columns) %}
{#- Grain: no two rows of the model share the columns. Returns the keys that repeat, with their count. -#}
select
    {{ columns | join(", ") }},
    count(*) as n_rows
from {{ touched_rows(model) }} as rows_built
group by {{ columns | join(", ") }}
having count(*) > 1
{% endtest %}
