{#-
  What an order status of OpenCart means here, by the ids that its installer gives them. 0 after an order was one is
  a voided order; 9 (canceled reversal) and ids that a shop added change nothing: see the test
  opencart_statuses_are_known.
-#}
{% macro opencart_statuses() -%}
    {{ return({
        0: "canceled", 1: "created", 2: "approved", 3: "shipped", 5: "delivered", 7: "canceled", 8: "canceled",
        10: "canceled", 11: "returned", 12: "canceled", 13: "canceled", 14: "canceled", 15: "approved",
        16: "canceled",
    }) }}
{%- endmacro %}

{% macro opencart_status(status_id) -%}
    case {{ status_id }}
        {%- for number, status in opencart_statuses().items() %}
        when {{ number }} then '{{ status }}'
        {%- endfor %}
    end
{%- endmacro %}

{#-
  Of the names that a thing has in several languages, the one to show on each day: that of the language in the var
  `opencart_language` (a code such as en-gb), else of the first language that has one.
-#}
{% macro opencart_names(table, key) -%}
    select distinct on (named.{{ key }}, named.partition_on)
        named.{{ key }},
        named.partition_on,
        named.name
    from (select * from {{ source("opencart", table) }}) as named
    left join (select * from {{ source("opencart", "oc_language") }}) as languages
        on named.language_id = languages.language_id and named.partition_on = languages.partition_on
    where named.name <> '' and not named._deleted
    order by
        named.{{ key }},
        named.partition_on,
        coalesce(languages.code = '{{ var("opencart_language", "en-gb") }}', false) desc,
        named.language_id
{%- endmacro %}
