{% test fresh(model, days, column="known_on") %}
{#-
  The newest `column` is at most `days` days before the build's business day. A model without rows is not fresh.
  Nothing is asked where the day is not known: in a warehouse that no night was built in.
-#}
select
    max({{ column }}) as newest,
    {{ built_as_of() }} as as_of
from {{ model }}
having coalesce(max({{ column }})::date < {{ built_as_of() }} - {{ days }}, {{ built_as_of() }} is not null)
{% endtest %}
