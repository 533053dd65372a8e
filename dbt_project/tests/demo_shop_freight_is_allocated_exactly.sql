-- The freight on the items of a demo shop order is what the order was charged. Orders whose items were all
-- quarantined have nowhere to carry it and are left out.
with orders as (
    select built.*
    from {{ touched_rows(ref("fact_order"), "contents") }} as built
    where built.marketplace = {{ marketplace("demo_shop") }} and n_items > 0
),

totals as (
    select *
    from {{ source("demo_shop", "oc_order_total") }}
    where order_id in (select orders.order_id::integer from orders)
),

charged as (
    select
        order_id::text as order_id,
        sum(value) as freight_amount
    from ({{ newest("totals", ["order_total_id"], "partition_on") }}) as newest
    where code = 'shipping' and _deleted is not true
    group by order_id
)

select
    orders.order_id,
    orders.freight_amount,
    charged.freight_amount as charged_freight_amount
from orders
inner join charged on orders.order_id = charged.order_id
where orders.freight_amount <> charged.freight_amount
