{#-
  For an incremental mart that touched keys alone do not tell what to make anew of: the strategy `stale`, with the config
  `stale` (the columns that name a part of the mart) and the pre-hook

    {{ find_stale(columns, select) }}

  whose select gives the parts that may differ, and those that the table does not have yet. The model gives what its
  table is to have of these parts, `where {{ where_stale(columns, alias) }}`; what differs is replaced, and the publisher is
  told of it (as note_unpublished does), in the transaction of the build.
-#}
{% macro find_stale(columns, select) -%}
    {%- if is_incremental() -%}
        drop table if exists pg_temp.stale;
        create temporary table stale on commit drop as
        select distinct {{ columns | join(", ") }} from ({{ select }}) as found;
        analyze pg_temp.stale;
    {%- endif -%}
{%- endmacro %}

{#- Condition that a row is of a stale part; `true` where the model is built whole. -#}
{% macro where_stale(columns, alias) -%}
    {%- if is_incremental() -%}
        ({{ alias }}.{{ columns | join(", " ~ alias ~ ".") }}) in (select {{ columns | join(", ") }} from pg_temp.stale)
    {%- else -%}
        true
    {%- endif -%}
{%- endmacro %}

{#- The strategy. The key by which rows are told apart is the model's unique index. -#}
{% macro get_incremental_stale_sql(arg_dict) -%}
    {%- set target = arg_dict["target_relation"] -%}
    {%- set stale = config.require("stale") -%}
    {%- set key = (config.require("indexes") | selectattr("unique", "defined") | first)["columns"] -%}
    {%- set names = arg_dict["dest_columns"] | map(attribute="name") | list -%}
    drop table if exists pg_temp.differing;
    create temporary table differing on commit drop as
    select {{ key | join(", ") }}
    from (
        select there.* from {{ target }} as there
        where (there.{{ stale | join(", there.") }}) in (select {{ stale | join(", ") }} from pg_temp.stale)
    ) as there
    full join {{ arg_dict["temp_relation"] }} as made using ({{ key | join(", ") }})
    where
        there.{{ key[0] }} is null
        or made.{{ key[0] }} is null
        or (there.{{ names | join(", there.") }}) is distinct from (made.{{ names | join(", made.") }});
    analyze pg_temp.differing;

    {{ note_differing(target, key) }}
    delete from {{ target }} as there
    using pg_temp.differing as differing
    where {% for column in key %}there.{{ column }} = differing.{{ column }}{{ " and " if not loop.last }}{% endfor %};

    insert into {{ target }} ({{ names | join(", ") }})
    select {{ names | join(", ") }}
    from {{ arg_dict["temp_relation"] }} as made
    inner join pg_temp.differing as differing using ({{ key | join(", ") }})
{%- endmacro %}

{#- Tells the publisher of the rows whose keys are in pg_temp.differing. -#}
{% macro note_differing(target, key) -%}
    {%- if target.schema == "core" -%}
        insert into ops.unpublished (mart, scope)
        select
            '{{ target.identifier }}',
            jsonb_build_object(
                {%- for column in key %}'{{ column }}', {{ column }}{{ ", " if not loop.last }}{% endfor -%}
            )
        from pg_temp.differing
        union all
        select '{{ target.identifier }}', null;
    {%- endif -%}
{%- endmacro %}
