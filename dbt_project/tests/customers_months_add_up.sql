-- A customer has in each month and marketplace the orders and amounts that fact_order has of it.
{%- set buyer_months = touched_keys("buyer_months") %}

with months as (
    select
        built.customer_id,
        built.marketplace,
        built.month_on,
        built.n_orders,
        built.n_canceled_orders,
        coalesce(built.item_reporting_amount, 0) as item_reporting_amount
    from {{ touched_rows(ref("int_customers__months"), thing="buyer_months") }} as built
),

placed as (
    select
        orders.customer_id,
        orders.marketplace,
        {{ month_of("orders.ordered_on") }} as month_on,
        {{ is_sale("orders.status") }} as is_sale,
        orders.item_reporting_amount
    from {{ ref("fact_order") }} as orders
    {% if is_night_by_keys() -%}
        inner join {{ months_of_buyers() }} as touched
            on
                orders.marketplace = touched.marketplace
                and orders.ordered_on >= touched.month_on
                and orders.ordered_on < {{ months_after("touched.month_on", 1) }}
    {%- endif %}
    where orders.customer_id is not null
),

orders as (
    select
        customer_id,
        marketplace,
        month_on,
        count(*) filter (where is_sale) as n_orders,
        count(*) filter (where not is_sale) as n_canceled_orders,
        coalesce(sum(item_reporting_amount) filter (where is_sale), 0) as item_reporting_amount
    from placed
    {% if is_night_by_keys() -%}
        where (customer_id, marketplace, month_on) in {{ buyer_months }}
    {%- endif %}
    group by customer_id, marketplace, month_on
)

select
    customer_id,
    marketplace,
    month_on,
    months.n_orders,
    orders.n_orders as n_orders_of_fact,
    months.n_canceled_orders,
    orders.n_canceled_orders as n_canceled_orders_of_fact,
    months.item_reporting_amount,
    orders.item_reporting_amount as item_reporting_amount_of_fact
from months
full join orders using (customer_id, marketplace, month_on)
where
    (months.n_orders, months.n_canceled_orders, months.item_reporting_amount)
    is distinct from (orders.n_orders, orders.n_canceled_orders, orders.item_reporting_amount)
