-- The freight on the items of a demo shop order is what the order was charged. Orders whose items were all
-- quarantined have nowhere to carry it and are left out.
with charged as (
    select
        order_id::text as order_id,
        sum(value) as freight_amount
    from ({{ newest(source("demo_shop", "oc_order_total"), ["order_total_id"], "partition_on") }}) as newest
    where code = 'shipping'
    group by order_id
)

select
    orders.order_id,
    orders.freight_amount,
    charged.freight_amount as charged_freight_amount
from {{ ref("fact_order") }} as orders
inner join charged on orders.order_id = charged.order_id
where
    orders.marketplace = {{ marketplace("demo_shop") }}
    and orders.n_items > 0
    and orders.freight_amount <> charged.freight_amount
