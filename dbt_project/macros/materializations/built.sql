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

{#-
  `config(meta={"bi_indexes": [[column, ...], ...]})`: indexes of a mart that readers of bi need and no model does. The
  publisher (include/warehouse/marts.py) makes them where those read; in core each night would write them as well.
-#}
{% macro tell_bi_indexes() -%}
    {%- if execute and flags.FULL_REFRESH and is_published(this) -%}
        delete from ops.bi_index where mart = '{{ this.identifier }}';
        {%- for columns in (model.config.get("meta") or {}).get("bi_indexes", []) %}
        insert into ops.bi_index (mart, columns) values ('{{ this.identifier }}', array['{{ columns | join("', '") }}']);
        {%- endfor %}
    {%- endif -%}
{%- endmacro %}
