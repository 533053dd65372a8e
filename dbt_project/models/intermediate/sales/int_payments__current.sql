-- The payments of an order that its source removed are gone with it.
with payments as (
    {{ union_sources("payments") }}
),

removed as (
    select *
    from {{ ref("int_orders__deleted") }}
)

select newest.*
from ({{ newest("payments", ["marketplace", "order_id", "payment_id"]) }}) as newest
left join removed on newest.marketplace = removed.marketplace and newest.order_id = removed.order_id
where newest.is_deleted is not true and removed.order_id is null
