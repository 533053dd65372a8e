{% test row_count_within(model, share) %}
{#-
  The number of rows has not moved by more than `share` of what the newest earlier night published under the same name.
  Nothing is asked in the first night.
-#}
with before as (
    select
        as_of,
        n_rows
    from ops.publication
    where target = '{{ model.identifier }}' and as_of < coalesce({{ built_as_of() }}, 'infinity')
    order by as_of desc
    limit 1
)

select
    before.as_of,
    before.n_rows as n_rows_before,
    now.n_rows
from before
cross join (select count(*) as n_rows from {{ model }}) as now
where abs(now.n_rows - before.n_rows) > {{ share }} * before.n_rows
{% endtest %}
