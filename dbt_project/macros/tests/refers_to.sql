{% test refers_to(model, columns, to, to_columns=none) %}
{#- Each combination of non-null columns exists in `to`: relationships for keys of several columns. -#}
{%- set to_columns = to_columns or columns %}
select distinct {% for column in columns %}child.{{ column }}{{ ", " if not loop.last }}{% endfor %}
from {{ touched_rows(model) }} as child
where
    {%- for column in columns %}
    child.{{ column }} is not null and
    {%- endfor %}
    not exists (
        select 1
        from {{ to }} as parent
        where
            {%- for column in columns %}
            {{ "and" if not loop.first }} parent.{{ to_columns[loop.index0] }} = child.{{ column }}
            {%- endfor %}
    )
{% endtest %}
