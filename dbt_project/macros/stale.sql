{#-
  For an incremental mart that touched keys alone do not tell what to make anew of: the strategy `stale`, with the config
  `stale` (the columns that name a part of the mart) and the pre-hook

    {{ find_stale(columns, select) }}

  whose select gives the parts that may differ, and those that the table does not have yet. The model gives what its
  table is to have of these parts, `where {{ where_stale(columns, alias) }}`; what differs is replaced (replace_differing).
-#}
{% macro find_stale(columns, select) -%}
    {%- if is_incremental() -%}
        drop table if exists pg_temp.stale;
        create temporary table stale on commit drop as
        select distinct {{ columns | join(", ") }} from ({{ select }}) as found;
        analyze pg_temp.stale;
    {%- endif -%}
{%- endmacro %}

{#-
  Condition that a row is of a stale part, of those that `condition` is true of; `true` where the model is built whole. A
  unit test has no `this`.
-#}
{% macro where_stale(columns, alias, condition=none) -%}
    {%- if this is not none and is_incremental() -%}
        ({{ alias }}.{{ columns | join(", " ~ alias ~ ".") }}) in (
            select {{ columns | join(", ") }} from pg_temp.stale {{ "where " ~ condition if condition }}
        )
    {%- else -%}
        true
    {%- endif -%}
{%- endmacro %}

{#- The strategy. -#}
{% macro get_incremental_stale_sql(arg_dict) -%}
    {%- set stale = config.require("stale") -%}
    {%- set columns = stale | join(", ") -%}
    {{ replace_differing(arg_dict, stale, "(" ~ columns ~ ") in (select " ~ columns ~ " from pg_temp.stale)") }}
{%- endmacro %}
