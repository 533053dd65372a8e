-- The replay already shows only what was known on each day. Olist's customer_id is one per order; the person
-- is customer_unique_id.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with orders as (
    select * from {{ raw("olist", "orders") }} as orders
),

customers as (
    {{ newest(raw("olist", "customers"), ["customer_id"], "partition_on") }}
)

select
    {{ marketplace("olist") }} as marketplace,
    orders.order_id,
    customers.customer_unique_id as customer_id,
    orders.order_purchase_timestamp as ordered_at,
    case
        when orders.order_status in ('invoiced', 'processing') then 'approved'
        else orders.order_status
    end as status,
    {{ currency("olist") }} as currency,
    orders.order_approved_at as approved_at,
    orders.order_delivered_carrier_date as handed_over_at,
    orders.order_delivered_customer_date as delivered_at,
    orders.order_estimated_delivery_date as estimated_delivery_at,
    orders._deleted as is_deleted,
    orders.known_at,
    orders.partition_on as known_on{{ evolved("olist", "orders", "orders") }}
from orders
left join customers on orders.customer_id = customers.customer_id
