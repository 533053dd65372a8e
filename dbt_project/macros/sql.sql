{#- The UTC day of a timestamptz, whatever the session's time zone is. -#}
{% macro utc_day(moment) -%}
    (({{ moment }}) at time zone 'UTC')::date
{%- endmacro %}

{#-
  Newest version of each key: `known_at` decides, then `known_on` (a correction may carry an old time).
  `relation` is a relation or the name of a CTE with `known_at` and `known_on` (raw: `partition_on`).
-#}
{% macro newest(relation, keys, day="known_on") -%}
    select distinct on ({{ keys | join(", ") }}) *
    from {{ relation }}
    order by {{ keys | join(", ") }}, known_at desc, {{ day }} desc
{%- endmacro %}

{#- Undo the HTML escaping that OpenCart applies to names. `&amp;` last, or `&amp;lt;` would become `<`. -#}
{% macro html_unescape(text) -%}
    {%- set marks = {
        "&quot;": '"', "&#039;": "''", "&#39;": "''", "&apos;": "''", "&lt;": "<", "&gt;": ">", "&nbsp;": " ",
        "&amp;": "&",
    } -%}
    {%- set ns = namespace(sql=text) -%}
    {%- for mark, plain in marks.items() -%}
        {%- set ns.sql = "replace(" ~ ns.sql ~ ", '" ~ mark ~ "', '" ~ plain ~ "')" -%}
    {%- endfor -%}
    {{ ns.sql }}
{%- endmacro %}
