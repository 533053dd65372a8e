{#-
  The versions of `relation` as ranges of business days in which `columns` stayed the same: `keys`, `columns`,
  valid_from, valid_to (exclusive; null: to this day), is_current, n_version (1 is the first).
  What is known at the end of a day is the version with the newest known_at, then known_on, of those that had come:
  one that came late with an older known_at changes nothing. A thing that is only known as removed has no history.
-#}
{% macro history_of(relation, keys, columns) -%}
    select
        {{ keys | join(",\n        ") }},
        {{ columns | join(",\n        ") }},
        known_on as valid_from,
        lead(known_on) over versions as valid_to,
        lead(known_on) over versions is null as is_current,
        (row_number() over versions)::integer as n_version
    from (
        select
            *,
            lag(known_on) over versions as before_on,
            {%- for column in columns %}
            lag({{ column }}) over versions as before_{{ column }}{{ "," if not loop.last }}
            {%- endfor %}
        from (
            select
                *,
                bool_or(is_deleted is not true) over earlier as was_there,
                max(known_at) over earlier as newest_known_at
            from {{ relation }}
            window earlier as (partition by {{ keys | join(", ") }} order by known_on)
        ) as learned
        where was_there and known_at >= newest_known_at
        window versions as (partition by {{ keys | join(", ") }} order by known_on)
    ) as compared
    where
        before_on is null
        {%- for column in columns %}
        or {{ column }} is distinct from before_{{ column }}
        {%- endfor %}
    window versions as (partition by {{ keys | join(", ") }} order by known_on)
{%- endmacro %}

{#-
  Point-in-time lookup: joins, as `name`, the range of a history (SCD type 2) that held on the day `on` to each row of
  `of`. A day before the first range takes the first one, as what was first learned of a thing says most about the time
  before; with `strict` it finds nothing.

      select items.order_id, history.list_price_amount
      from fact_order_item as items
      {{ as_of_join(ref("dim_product_history"), ["marketplace", "product_id"], on="items.ordered_on", of="items") }}
-#}
{% macro as_of_join(history, keys, on, of, name="history", strict=false) -%}
    left join {{ history }} as {{ name }}
        on
            {% for key in keys -%}
            {{ of }}.{{ key }} = {{ name }}.{{ key }}
            and {% endfor -%}
            ({{ on }} >= {{ name }}.valid_from{% if not strict %} or {{ name }}.n_version = 1{% endif %})
            and ({{ on }} < {{ name }}.valid_to or {{ name }}.valid_to is null)
{%- endmacro %}

{#- A post-hook for histories: no key has two current rows, even if two builds ran at once. -#}
{% macro one_current(keys) -%}
    create unique index if not exists {{ this.identifier }}_current on {{ this }} ({{ keys | join(", ") }})
    where is_current
{%- endmacro %}
