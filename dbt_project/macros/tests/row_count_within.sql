{% test row_count_within(model, share) %}
{#-
  The number of rows has not moved by more than `share` of what the newest earlier night published under the same name.
  Nothing is asked in the first night. Where a night built by keys noted fewer other rows than that (note_differing), the
  rows are not counted.
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
where
    abs(now.n_rows - before.n_rows) > {{ share }} * before.n_rows
    {%- if is_noted_mart(model) %}
    and (
        select count(*)
        from ops.unpublished as noted
        where noted.mart = '{{ model.identifier }}' and noted.scope is not null
    ) > {{ share }} * (select before.n_rows from before)
    {%- endif %}
{% endtest %}
