{{ config(indexes=[{"columns": ["customer_id"], "unique": true}]) }}

with touched as (
    select * from {{ ref("int_touched__orders") }}
),

customers as (
    select key as customer_id
    from ops.touched_work
    where thing = 'customers' and key <> '*'
    union
    select customer_id_before
    from touched
    union
    select orders.customer_id
    from {{ ref("int_orders__current") }} as orders
    inner join touched on orders.marketplace = touched.marketplace and orders.order_id = touched.order_id
)

select customer_id
from customers
where customer_id is not null
