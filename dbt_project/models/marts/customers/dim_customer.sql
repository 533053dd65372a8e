{{ config(
    materialized="incremental",
    incremental_strategy="stale",
    stale=["customer_id"],
    pre_hook="{{ find_stale(['customer_id'], stale_buyers()) }}",
    indexes=[{"columns": ["customer_id"], "unique": true}],
) }}

with orders as (
    select
        customer_id,
        min(months.first_order_on) as first_order_on,
        max(months.last_order_on) as last_order_on,
        sum(months.n_orders)::integer as n_orders,
        (array_agg(marketplace order by first_ordered_at, marketplace))[1] as first_marketplace,
        (array_agg(marketplace order by last_ordered_at desc, marketplace asc))[1] as last_marketplace,
        string_agg(distinct marketplace, ', ' order by marketplace) as marketplaces,
        count(distinct marketplace)::integer as n_marketplaces
    from {{ ref("int_customers__months") }} as months
    where {{ where_stale(["customer_id"], "months") }}
    group by customer_id
),

customers as (
    select every_customer.*
    from {{ ref("int_customers__current") }} as every_customer
    where {{ where_stale(["customer_id"], "every_customer") }}
)

select
    customer_id,
    orders.first_order_on,
    orders.last_order_on,
    coalesce(orders.n_orders, 0) as n_orders,
    orders.first_marketplace,
    customers.region,
    orders.last_marketplace,
    orders.marketplaces,
    coalesce(orders.n_marketplaces, 0) as n_marketplaces,
    customers.region_marketplace
from orders
full join customers using (customer_id)
