{% test reconciles(model, to, sums, by, tolerance=0, share=0, where="true", to_where="true") %}
{#-
  The sums of two relations agree in every group of `by`. `sums` says column of the model: expression of `to`. They may
  differ by `tolerance` in the column's unit, or by `share` of the model's sum, whichever is more. A group that one side
  lacks has the sum 0 there. Where a night builds only touched keys of the model it sums these alone, on both sides: `to`
  then has the columns of the key. Returns the groups that differ, with both sums.
-#}
with mine as (
    select
        {{ by | join(", ") }},
        {%- for column in sums %}
        sum({{ column }}) as {{ column }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ touched_rows(model) }} as my_rows
    where {{ where }}
    group by {{ by | join(", ") }}
),

theirs as (
    select
        {{ by | join(", ") }},
        {%- for column, expression in sums.items() %}
        sum({{ expression }}) as to_{{ column }}{{ "," if not loop.last }}
        {%- endfor %}
    from {{ touched_rows(to) }} as their_rows
    where {{ to_where }}
    group by {{ by | join(", ") }}
)

select *
from mine
full join theirs using ({{ by | join(", ") }})
where
    {%- for column in sums %}
    {{ "or" if not loop.first }} abs(coalesce({{ column }}, 0) - coalesce(to_{{ column }}, 0))
    > greatest({{ tolerance }}, {{ share }} * abs(coalesce({{ column }}, 0)))
    {%- endfor %}
{% endtest %}
