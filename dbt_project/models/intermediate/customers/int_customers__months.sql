-- A customer's first month decides the cohort: all months of a buyer are made anew. Those that have no other sale are
-- taken as they are.
{{ config(
    materialized="incremental",
    touched="buyers",
    pre_hook="{{ read_by_bitmap() }}",
    touches={"active_months": "month_on"},
    indexes=[
        {"columns": ["customer_id", "month_on", "marketplace"], "unique": true},
        {"columns": [
            "month_on", "marketplace", "cohort_month", "all_cohort_month", "is_first_of_month", "n_orders",
            "item_reporting_amount",
        ]},
    ],
) }}

{#- Named outside the condition, so that parsing sees what comes first. -#}
{%- set buyer_months = touched_keys("buyer_months") %}
{%- set key_of_month = ["orders.customer_id", "orders.marketplace", month_of("orders.ordered_on")] %}

with orders as (
    select
        orders.marketplace,
        orders.order_id,
        orders.customer_id,
        {{ month_of("orders.ordered_on") }} as month_on,
        orders.ordered_on,
        orders.ordered_at,
        {{ is_sale("orders.status") }} as is_sale
    from {{ ref("int_orders__current") }} as orders
    {% if is_incremental() -%}
        -- Whole months, whose orders lie together: those of a customer are on as many pages as there are orders.
        inner join {{ months_of_buyers() }} as months
            on
                orders.marketplace = months.marketplace
                and orders.ordered_on >= months.month_on
                and orders.ordered_on < {{ months_after("months.month_on", 1) }}
    {%- endif %}
    where
        orders.customer_id is not null
        {% if is_incremental() -%}
            and {{ where_touched("buyer_months", columns=key_of_month) }}
        {%- else -%}
            -- In a sample there is nothing to take the other months from.
            and {{ where_touched("buyers", "orders") }}
        {%- endif %}
),

ordered as (
    select
        marketplace,
        customer_id,
        month_on,
        (count(*) filter (where is_sale))::integer as n_orders,
        (count(*) filter (where not is_sale))::integer as n_canceled_orders,
        min(ordered_on) filter (where is_sale) as first_order_on,
        max(ordered_on) filter (where is_sale) as last_order_on,
        min(ordered_at) as first_ordered_at,
        max(ordered_at) as last_ordered_at
    from orders
    group by marketplace, customer_id, month_on
),

bought as (
    select
        items.marketplace,
        items.customer_id,
        {{ month_of("items.ordered_on") }} as month_on,
        sum(items.item_reporting_amount) as item_reporting_amount,
        jsonb_agg(distinct items.product_id order by items.product_id) as products
    from {{ ref("int_order_items__current") }} as items
    {% if is_incremental() -%}
        inner join orders on items.marketplace = orders.marketplace and items.order_id = orders.order_id
    {%- endif %}
    where items.is_sale and items.customer_id is not null
    group by items.marketplace, items.customer_id, {{ month_of("items.ordered_on") }}
),

months as (
    select
        ordered.*,
        -- Orders without items are worth nothing; items without a rate are worth nobody knows what.
        case when ordered.n_orders > 0 and bought.products is null then 0 else bought.item_reporting_amount end
            as item_reporting_amount,
        bought.products
    from ordered
    left join bought
        on
            ordered.marketplace = bought.marketplace
            and ordered.customer_id = bought.customer_id
            and ordered.month_on = bought.month_on
    {% if is_incremental() -%}
        union all
        select
            there.marketplace,
            there.customer_id,
            there.month_on,
            there.n_orders,
            there.n_canceled_orders,
            there.first_order_on,
            there.last_order_on,
            there.first_ordered_at,
            there.last_ordered_at,
            there.item_reporting_amount,
            there.products
        from {{ this }} as there
        left join {{ buyer_months }} as touched
            on
                there.customer_id = touched.customer_id
                and there.marketplace = touched.marketplace
                and there.month_on = touched.month_on
        where touched.customer_id is null and there.customer_id = any({{ touched_array("buyers") }})
    {%- endif %}
)

select
    *,
    min(month_on) filter (where n_orders > 0) over (partition by customer_id, marketplace) as cohort_month,
    min(month_on) filter (where n_orders > 0) over (partition by customer_id) as all_cohort_month,
    -- Counts the customer once where months of all marketplaces are added up.
    n_orders > 0
    and row_number() over (partition by customer_id, month_on order by n_orders = 0, marketplace) = 1
        as is_first_of_month
from months
