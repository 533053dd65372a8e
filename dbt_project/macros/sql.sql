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
    from {% if relation is string %}{{ relation }}{% else %}(select * from {{ relation }}){% endif %} as known
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

{#-
  A GTIN (EAN, UPC, JAN, ISBN-13) as 14 digits, so that those of two shops can be compared; null where the text is none:
  a wrong number of digits, a wrong check digit, only zeros.
-#}
{% macro gtin(text) -%}
    {%- set digits -%} regexp_replace({{ text }}, '[ -]', '', 'g') {%- endset -%}
    {%- set padded -%} lpad({{ digits }}, 14, '0') {%- endset -%}
    case
        when {{ digits }} ~ '^([0-9]{8}|[0-9]{12,14})$' and {{ digits }} ~ '[1-9]'
            then case
                when (
                    {% for at in range(1, 15) -%}
                    {{ "+ " if not loop.first }}{{ "3 * " if loop.index is odd }}substr({{ padded }}, {{ at }}, 1)::integer
                    {% endfor -%}
                ) % 10 = 0
                    then {{ padded }}
            end
    end
{%- endmacro %}

{#-
  Whether a stock code of online_retail is a product: these have five digits or DCGS and digits; the rest (POST, DOT, M,
  C2, D, S, B, BANK CHARGES, AMAZONFEE, CRUK, PADS, GIFT_...) is postage, fees, discounts, vouchers and corrections.
-#}
{% macro online_retail_is_product(stock_code) -%}
    {{ stock_code }} ~ '^([0-9]{5}|DCGS)'
{%- endmacro %}

{#- How many rows of a relation, called `name`, a condition is true of; no more are read than `n`, which may be of a row. -#}
{% macro count_up_to(n, relation, condition, name) -%}
    (
        select count(*)
        from (
            select 1
            from {{ relation }} as {{ name }}
            where {{ condition }}
            limit {{ n }}
        ) as enough
    )
{%- endmacro %}
