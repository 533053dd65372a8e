{% test fresh(model, days, column="known_on") %}
{#-
  The newest `column` is at most `days` days before the build's business day. A model without rows is not fresh.
  Nothing is asked where the day is not known: in a warehouse that no night was built in. Where a row that was built anew
  is new enough, the others are not read.
-#}
select seen.*
from (
    select
        max({{ column }}) as newest,
        {{ built_as_of() }} as as_of
    from {{ model }}
) as seen
where
    not exists (
        select 1
        from {{ touched_rows(model) }} as rows_built
        where rows_built.{{ column }}::date >= {{ built_as_of() }} - {{ days }}
    )
    and coalesce(seen.newest::date < seen.as_of - {{ days }}, seen.as_of is not null)
{% endtest %}
