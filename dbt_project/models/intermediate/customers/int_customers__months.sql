-- A customer's first month decides the cohort: all months of a buyer are made anew. Those that have no other sale are
-- taken as they are.
{{ config(
    materialized="incremental",
    touched="buyers",
    indexes=[
        {"columns": ["customer_id", "month_on", "marketplace"], "unique": true},
        {"columns": ["month_on"]},
    ],
) }}

{#- Named outside the condition, so that parsing sees what comes first. -#}
{%- set buyer_months = touched_keys("buyer_months") %}

with orders as (
    select
        orders.marketplace,
        orders.customer_id,
        orders.order_id,
        orders.ordered_on,
        coalesce(sum({{ reporting("items.item_amount", "rates.rate") }}), 0) as item_reporting_amount
    from {{ ref("int_orders__current") }} as orders
    {% if is_incremental() -%}
        inner join {{ buyer_months }} as touched
            on
                orders.customer_id = touched.customer_id
                and orders.ordered_on >= touched.month_on
                and orders.ordered_on < {{ months_after("touched.month_on", 1) }}
    {%- endif %}
    left join {{ ref("int_order_items__current") }} as items
        on orders.marketplace = items.marketplace and orders.order_id = items.order_id
    left join {{ ref("int_currency__rates") }} as rates
        on orders.currency = rates.currency and orders.ordered_on = rates.rate_on
    where
        orders.customer_id is not null
        and {{ is_sale("orders.status") }}
        and {{ where_touched("buyers", "orders") }}
    group by orders.marketplace, orders.customer_id, orders.order_id, orders.ordered_on
),

months as (
    select
        marketplace,
        customer_id,
        {{ month_of("ordered_on") }} as month_on,
        count(*)::integer as n_orders,
        sum(item_reporting_amount) as item_reporting_amount,
        min(ordered_on) as first_order_on,
        max(ordered_on) as last_order_on
    from orders
    group by marketplace, customer_id, {{ month_of("ordered_on") }}
    {% if is_incremental() -%}
        union all
        select
            there.marketplace,
            there.customer_id,
            there.month_on,
            there.n_orders,
            there.item_reporting_amount,
            there.first_order_on,
            there.last_order_on
        from {{ this }} as there
        left join {{ buyer_months }} as touched
            on there.customer_id = touched.customer_id and there.month_on = touched.month_on
        where touched.customer_id is null and {{ where_touched("buyers", "there") }}
    {%- endif %}
)

select
    *,
    min(month_on) over (partition by customer_id, marketplace) as cohort_month,
    min(month_on) over (partition by customer_id) as all_cohort_month,
    -- Counts the customer once where months of all marketplaces are added up.
    row_number() over (partition by customer_id, month_on order by marketplace) = 1 as is_first_of_month
from months
