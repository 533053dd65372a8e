{#-
  A view, but a table in an analyst's schema: nothing there hangs on production, and no rebuild of production takes it
  away.
-#}
{% materialization view, adapter="postgres" %}
    {%- if target.name == "dev" -%}
        {{ return(dbt.materialization_table_default()) }}
    {%- else -%}
        {{ return(dbt.materialization_view_default()) }}
    {%- endif -%}
{% endmaterialization %}
