{{ config(indexes=[{"columns": ["customer_id", "month_on", "marketplace"], "unique": true}]) }}

with touched as (
    select *
    from {{ ref("int_touched__sales") }}
    where is_other_sale
)

select
    customer_id_before as customer_id,
    marketplace,
    {{ month_of("ordered_on_before") }} as month_on
from touched
where customer_id_before is not null
union
select
    orders.customer_id,
    orders.marketplace,
    {{ month_of("orders.ordered_on") }} as month_on
from {{ ref("int_orders__current") }} as orders
inner join touched on orders.marketplace = touched.marketplace and orders.order_id = touched.order_id
where orders.customer_id is not null
order by customer_id
