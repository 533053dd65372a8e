{#-
  The conformed shapes: columns and types that `stg_<source>__<entity>` has, whatever the source.
  One row per key and business day on which something about the key became known (`known_on`). A version that
  `is_deleted` says that the source no longer has the key; its other columns are what was last known.
  Money stays plain numeric here so that the money tests see the digits before a mart's numeric(18,4) rounds them.
  What a source does not tell is null. A product's `stock_quantity` is what was in stock when the version was made: a
  sale makes no version of the product. `stock` has a row for each day on which the source told its stock.
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
        "adjustments": {
            "marketplace": "text", "order_id": "text", "adjustment_id": "text", "kind": "text",
            "adjustment_amount": "numeric", "currency": "text",
        },
        "products": {
            "marketplace": "text", "product_id": "text", "product_name": "text", "category": "text",
            "list_price_amount": "numeric", "currency": "text", "is_product": "boolean", "sku": "text",
            "gtin": "text", "stock_quantity": "integer", "status": "text",
        },
        "stock": {"marketplace": "text", "product_id": "text", "stock_quantity": "integer"},
        "vendors": {"marketplace": "text", "vendor_id": "text", "vendor_name": "text", "region": "text"},
        "customers": {"marketplace": "text", "customer_id": "text", "region": "text"},
        "refunds": {
            "marketplace": "text", "refund_id": "text", "order_id": "text", "order_item_id": "integer",
            "product_id": "text", "kind": "text", "status": "text", "refunded_on": "date", "quantity": "integer",
            "refund_amount": "numeric", "currency": "text", "reason": "text",
        },
        "reviews": {
            "marketplace": "text", "review_id": "text", "product_id": "text", "order_id": "text",
            "customer_id": "text", "rating": "numeric", "review_at": "timestamptz", "is_approved": "boolean",
            "n_characters": "integer",
        },
        "coupon_uses": {
            "marketplace": "text", "coupon_use_id": "text", "order_id": "text", "customer_id": "text",
            "campaign": "text", "coupon_code": "text", "discount_amount": "numeric", "currency": "text",
            "used_at": "timestamptz",
        },
        "rates": {"currency": "text", "rate_on": "date", "eur_per_unit": "numeric"},
        "holidays": {"country": "text", "holiday_on": "date", "name": "text"},
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

{#-
  The versions of what comes in groups, each whole on its days: the items of an order that comes anew with all of them
  whenever it changes, the products of a catalogue that is read whole. One that its group comes without was taken out:
  to the rows of `seen` it adds, on that day, a version that is deleted and otherwise as it last was.
  `seen` and `days` are CTEs: `days` has (*group, partition_on, known_at), several rows a day or one; `seen` those, the
  other columns of `key`, `columns` and is_deleted.
-#}
{% macro with_taken_out(seen, days, group, key, columns) -%}
    select
        {% for column in columns %}{{ column }},
        {% endfor -%}
        is_deleted,
        known_at,
        partition_on
    from {{ seen }}
    union all
    select
        {% for column in columns %}seen.{{ column }},
        {% endfor -%}
        true as is_deleted,
        next_days.next_known_at as known_at,
        next_days.next_on as partition_on
    from {{ seen }} as seen
    inner join (
        select
            {% for column in group %}{{ column }},
            {% endfor -%}
            partition_on,
            lead(partition_on) over days as next_on,
            lead(max(known_at)) over days as next_known_at
        from {{ days }}
        group by {{ (group + ["partition_on"]) | join(", ") }}
        window days as ({% if group %}partition by {{ group | join(", ") }} {% endif %}order by partition_on)
    ) as next_days using ({{ (group + ["partition_on"]) | join(", ") }})
    left join {{ seen }} as still
        on
            {% for column in key %}seen.{{ column }} = still.{{ column }}
            and {% endfor %}next_days.next_on = still.partition_on
    where not seen.is_deleted and next_days.next_on is not null and still.{{ key[0] }} is null
{%- endmacro %}
