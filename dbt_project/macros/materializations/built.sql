{#-
  What a table is, its comments and its contract, was settled when it was created: other code, a description included, is
  a full refresh (include.dbt.fingerprint). A night that adds to the table need not ask the catalogue again.
-#}
{% macro postgres__persist_docs(relation, model, for_relation, for_columns) -%}
    {%- if not is_incremental() -%}
        {%- do default__persist_docs(relation, model, for_relation, for_columns) -%}
    {%- endif -%}
{%- endmacro %}

{% macro postgres__get_assert_columns_equivalent(sql) -%}
    {%- if not is_incremental() -%} {{ return(default__get_assert_columns_equivalent(sql)) }} {%- endif -%}
{%- endmacro %}
