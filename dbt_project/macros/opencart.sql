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

{#-
  `items` (a CTE of order items) with `freight_amount`, each one's share of its order's freight by what it costs. The
  cents that rounding leaves over go to the first item, so that an order's items carry exactly what the order was
  charged. `freight` (a CTE) has the order's freight_amount by the columns `by`.
-#}
{% macro opencart_freight_shares(items, freight, by) -%}
    select
        *,
        (
            coalesce(share, 0)
            + case when position = 1 then order_freight_amount - coalesce(sum(share) over same_order, 0) else 0 end
        )::numeric(18, 4) as freight_amount
    from (
        select
            items.*,
            coalesce(freight.freight_amount, 0) as order_freight_amount,
            round(
                freight.freight_amount * items.quantity * items.price
                / nullif(sum(items.quantity * items.price) over same_order, 0),
                2
            ) as share,
            row_number() over (same_order order by items.order_product_id) as position
        from {{ items }} as items
        left join {{ freight }} as freight using ({{ by | join(", ") }})
        window same_order as (partition by items.order_id, items.partition_on)
    ) as shares
    window same_order as (partition by order_id, partition_on)
{%- endmacro %}

{#- The vendor of a product at the time; before its first version, the first one known. A row for each change of it. -#}
{% macro opencart_vendors(table) -%}
    select
        product_id,
        vendor_id,
        case when n_th = 1 then '-infinity' else partition_on end as valid_from,
        coalesce(lead(partition_on) over changes, 'infinity') as valid_until
    from (
        select
            product_id,
            vendor_id,
            partition_on,
            lag(vendor_id) over versions as vendor_before,
            row_number() over versions as n_th
        from {{ table }}
        window versions as (partition by product_id order by partition_on)
    ) as versions
    where n_th = 1 or vendor_id is distinct from vendor_before
    window changes as (partition by product_id order by partition_on)
{%- endmacro %}

{#- What a line of an order's total is that is neither goods nor shipping: tax, discount or other. -#}
{% macro opencart_adjustment(code) -%}
    case
        when {{ code }} = 'tax' then 'tax'
        when {{ code }} in ('coupon', 'voucher', 'credit', 'reward') then 'discount'
        else 'other'
    end
{%- endmacro %}
