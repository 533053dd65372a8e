{#-
  A sample for an analyst (`make dbt SELECT=... DAYS=30`): models that are built by touched keys are built as if the orders
  of the newest so many days, and what hangs on them, had been touched. Not a var: see built_as_of.
-#}
{% macro is_sampled() -%}
    {{ return(execute and target.name == "dev" and env_var("EMPORIUM_DBT_DAYS", "") != "") }}
{%- endmacro %}

{#- Select of the keys in the sample, with the columns of touched(); read from production. -#}
{% macro sampled(thing) -%}
    {%- set from_orders = {
        "orders": "marketplace, order_id",
        "contents": "marketplace, order_id",
        "days": "marketplace, ordered_on as date_on",
        "sale_days": "marketplace, ordered_on as date_on",
        "months": "marketplace, date_trunc('month', ordered_on)::date as month_on",
        "customers": "customer_id",
        "buyers": "customer_id",
        "buyer_months": "customer_id, marketplace, date_trunc('month', ordered_on)::date as month_on",
    } -%}
    {%- set begin = built_as_of() ~ " - " ~ env_var("EMPORIUM_DBT_DAYS") | int -%}
    {%- if thing in from_orders -%}
        (select distinct {{ from_orders[thing] }} from intermediate.int_orders__current where ordered_on > {{ begin }})
    {%- elif thing in ("products", "reviewed") -%}
        (
            select distinct marketplace, product_id
            from intermediate.int_order_items__current
            where ordered_on > {{ begin }}
        )
    {%- else -%}
        (select distinct marketplace, session_on from core.fact_session where session_on > {{ begin }})
    {%- endif -%}
{%- endmacro %}
