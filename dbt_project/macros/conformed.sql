{#-
  The conformed shapes: columns and types that `stg_<source>__<entity>` has, whatever the source.
  One row per key and business day on which something about the key became known (`known_on`). A version that
  `is_deleted` says that the source no longer has the key; its other columns are what was last known.
  Money stays plain numeric here so that the money tests see the digits before a mart's numeric(18,4) rounds them.
-#}
{% macro conformed_columns(entity) -%}
    {%- set versions = {"is_deleted": "boolean", "known_at": "timestamptz", "known_on": "date"} -%}
    {%- set delivery = {
        "approved_at": "timestamptz",
        "handed_over_at": "timestamptz",
        "delivered_at": "timestamptz",
        "estimated_delivery_at": "timestamptz",
    } -%}
    {%- set shapes = {
        "orders": {
            "marketplace": "text", "order_id": "text", "customer_id": "text", "ordered_at": "timestamptz",
            "status": "text", "currency": "text",
        },
        "deliveries": {"marketplace": "text", "order_id": "text"},
        "order_items": {
            "marketplace": "text", "order_id": "text", "order_item_id": "integer", "product_id": "text",
            "vendor_id": "text", "quantity": "integer", "unit_amount": "numeric", "freight_amount": "numeric",
            "currency": "text",
        },
        "payments": {
            "marketplace": "text", "order_id": "text", "payment_id": "text", "paid_on": "date",
            "payment_type": "text", "n_installments": "integer", "payment_amount": "numeric", "currency": "text",
        },
        "products": {
            "marketplace": "text", "product_id": "text", "product_name": "text", "category": "text",
            "list_price_amount": "numeric", "currency": "text", "is_product": "boolean",
        },
        "vendors": {"marketplace": "text", "vendor_id": "text", "vendor_name": "text", "region": "text"},
        "customers": {"marketplace": "text", "customer_id": "text", "region": "text"},
        "sessions": {
            "session_id": "text", "marketplace": "text", "visitor_id": "text", "customer_id": "text",
            "session_on": "date", "started_at": "timestamptz", "ended_at": "timestamptz", "n_events": "integer",
            "n_product_views": "integer", "n_cart_adds": "integer", "n_purchases": "integer", "campaign": "text",
            "is_bot": "boolean", "known_at": "timestamptz",
        },
    } -%}
    {%- set columns = {} -%}
    {%- do columns.update(shapes.get(entity, {})) -%}
    {%- if entity in ("orders", "deliveries") -%} {%- do columns.update(delivery) -%} {%- endif -%}
    {#- A session is as it is known now; Spark makes it anew when an event comes late. -#}
    {%- if entity != "sessions" -%} {%- do columns.update(versions) -%} {%- endif -%}
    {{ return(columns) }}
{%- endmacro %}

{#-
  `select <conformed columns> from stg_<source>__<entity>` of every source that provides the entity, as one
  union. A new source joins by its YAML and its staging models; no model that uses this changes.
  `only` and `without` narrow the sources. No source at all gives no rows, not an error.
-#}
{% macro union_sources(entity, only=none, without=[]) -%}
    {%- set columns = conformed_columns(entity) -%}
    {%- for name in sources_with(entity) if name not in without and (only is none or name in only) %}
        select
            {%- for column, kind in columns.items() %}
            cast({{ column }} as {{ kind }}) as {{ column }}{{ "," if not loop.last }}
            {%- endfor %}
        from {{ ref("stg_" ~ name ~ "__" ~ entity) }}
        {{ "union all" if not loop.last }}
    {%- else %}
        select
            {%- for column, kind in columns.items() %}
            cast(null as {{ kind }}) as {{ column }}{{ "," if not loop.last }}
            {%- endfor %}
        where false
    {%- endfor %}
{%- endmacro %}

{#-
  Columns that a raw table gained by evolution (`schema_policy: evolve`), each with a comma before it: what a staging
  model shows last, beside the columns that the YAML names. `of` is the relation's alias. A column that has the name of
  one of the model's own is called `raw_<column>`. Nothing where there are none.
-#}
{% macro evolved(source_name, table, of=none) -%}
    {%- set own = conformed_columns(model.name.split("__")[-1]) -%}
    {%- for column in all_sources()[source_name].get("evolved", {}).get(table, []) -%}
        , {{ of ~ "." if of else "" }}{{ column }} as {{ "raw_" ~ column if column in own else column }}
    {%- endfor -%}
{%- endmacro %}
