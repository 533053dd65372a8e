{{ config(indexes=[{"columns": ["customer_id"], "unique": true}]) }}

with orders as (
    select
        customer_id,
        min(ordered_on) filter (where status not in ('canceled', 'unavailable')) as first_order_on,
        max(ordered_on) filter (where status not in ('canceled', 'unavailable')) as last_order_on,
        (count(*) filter (where status not in ('canceled', 'unavailable')))::integer as n_orders,
        (array_agg(marketplace order by ordered_at, marketplace, order_id))[1] as first_marketplace
    from {{ ref("int_orders__current") }}
    where customer_id is not null
    group by customer_id
),

customers as (
    select * from {{ ref("int_customers__current") }}
)

select
    customer_id,
    orders.first_order_on,
    orders.last_order_on,
    coalesce(orders.n_orders, 0) as n_orders,
    orders.first_marketplace,
    customers.region
from orders
full join customers using (customer_id)
