{#- dbt's own row-level tests, of the rows that a build made anew: see touched_rows. -#}
{% macro default__test_not_null(model, column_name) -%}
select *
from {{ touched_rows(model) }} as rows_built
where {{ column_name }} is null
{%- endmacro %}

{% macro default__test_accepted_values(model, column_name, values, quote=true) -%}
select
    {{ column_name }} as value_field,
    count(*) as n_records
from {{ touched_rows(model) }} as rows_built
where
    {{ column_name }} not in (
        {%- for value in values -%}
        {{ "'" ~ value ~ "'" if quote else value }}{{ ", " if not loop.last }}
        {%- endfor -%}
    )
group by {{ column_name }}
{%- endmacro %}

{% macro default__test_unique(model, column_name) -%}
select
    {{ column_name }} as unique_field,
    count(*) as n_records
from {{ touched_rows(model) }} as rows_built
where {{ column_name }} is not null
group by {{ column_name }}
having count(*) > 1
{%- endmacro %}
