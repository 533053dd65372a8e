{{ config(indexes=[{"columns": ["customer_id"], "unique": true}]) }}

with touched as (
    select * from {{ ref("int_touched__sales") }}
),

customers as (
    select
        key as customer_id,
        false as is_other_sale
    from ops.touched_work
    where thing = 'customers' and key <> '*'
    union all
    select
        customer_id_before,
        is_other_sale
    from touched
    union all
    select
        orders.customer_id,
        touched.is_other_sale
    from {{ ref("int_orders__current") }} as orders
    inner join touched on orders.marketplace = touched.marketplace and orders.order_id = touched.order_id
)

select
    customer_id,
    bool_or(is_other_sale) as is_other_sale
from customers
where customer_id is not null
group by customer_id
