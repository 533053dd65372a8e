{#- The schemas are the warehouse's own (migration 0001): no target prefix. An analyst has one schema for everything. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (target.schema if target.name == "dev" else custom_schema_name or target.schema) | trim }}
{%- endmacro %}
