{#-
  For an incremental mart that touched keys alone do not tell what to make anew of. A pre-hook: takes out the rows whose
  `columns` are among those of the select `stale` and tells the publisher (as note_unpublished does), in the transaction
  of the build; the model then gives what its table lacks. `stale` also names the keys that the table does not have yet.
-#}
{% macro forget_stale(columns, stale) -%}
    {%- if is_incremental() -%}
        drop table if exists pg_temp.stale;
        create temporary table stale on commit drop as
        select distinct {{ columns | join(", ") }} from ({{ stale }}) as found;
        {{ note_stale(columns) }}
        delete from {{ this }} where ({{ columns | join(", ") }}) in (select {{ columns | join(", ") }} from stale);
    {%- endif -%}
{%- endmacro %}

{% macro note_stale(columns) -%}
    {%- if this.schema == "core" -%}
        insert into ops.unpublished (mart, scope)
        select
            '{{ this.identifier }}',
            jsonb_build_object(
                {%- for column in columns %}'{{ column }}', {{ column }}{{ ", " if not loop.last }}{% endfor -%}
            )
        from stale
        union all
        select '{{ this.identifier }}', null;
    {%- endif -%}
{%- endmacro %}
