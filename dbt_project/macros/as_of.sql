{#-
  The business day of the build as SQL; null where none is known. Not a var: dbt parses the whole project anew whenever a
  var changes. `python -m include.dbt` says it: `--as-of`, else the day of the newest night.
-#}
{% macro built_as_of() -%}
    {%- set day = env_var("EMPORIUM_DBT_AS_OF", "") if execute else "" -%}
    {{ "'" ~ day ~ "'::date" if day else "null::date" }}
{%- endmacro %}
