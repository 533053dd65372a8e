{% test unique_combination(model, columns) %}
{#-
  Grain: no two rows of the model share the columns. Returns the keys that repeat, with their count. Apart from the
  grouping: for its sake Postgres would read a whole index in order, where a night built a few rows.
-#}
with rows_built as materialized (
    select {{ columns | join(", ") }}
    from {{ touched_rows(model) }} as every_row
)

select
    {{ columns | join(", ") }},
    count(*) as n_rows
from rows_built
group by {{ columns | join(", ") }}
having count(*) > 1
{% endtest %}
