{#-
  Which sources there are and what each provides: the var `sources`, made by `python -m include.dbt` from
  include/sources/*.yaml: {source: {marketplace, currency, provides: [conformed entity, ...]}}.
  No default here: a build that silently left out a source would publish a warehouse without it.
-#}
{% macro all_sources() -%}
    {%- set found = var("sources", none) -%}
    {%- if found is none -%}
        {{ exceptions.raise_compiler_error(
            "The var `sources` is not set: run `python -m include.dbt`, or pass --vars from include.dbt.variables()."
        ) }}
    {%- endif -%}
    {{ return(found) }}
{%- endmacro %}

{#- Names of the sources that provide a conformed entity, sorted. -#}
{% macro sources_with(entity) -%}
    {%- set names = [] -%}
    {%- for name, about in all_sources() | dictsort if entity in about.provides -%}
        {%- do names.append(name) -%}
    {%- endfor -%}
    {{ return(names) }}
{%- endmacro %}

{#- The marketplace of a source as a literal. -#}
{% macro marketplace(source_name) -%}
    '{{ all_sources()[source_name].marketplace }}'
{%- endmacro %}

{#- The currency of a source's amounts as a literal. -#}
{% macro currency(source_name) -%}
    '{{ all_sources()[source_name].currency }}'
{%- endmacro %}
