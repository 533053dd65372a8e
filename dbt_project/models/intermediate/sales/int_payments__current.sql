-- The payments of an order that its source removed are gone with it.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "payment_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "paid_on"]},
    ],
) }}

with payments as (
    select *
    from ({{ union_sources("payments") }}) as told
    where {{ where_touched("orders", "told") }}
),

removed as (
    select *
    from {{ ref("int_orders__deleted") }}
    where {{ where_touched("orders") }}
)

select newest.*
from ({{ newest("payments", ["marketplace", "order_id", "payment_id"]) }}) as newest
left join removed on newest.marketplace = removed.marketplace and newest.order_id = removed.order_id
where newest.is_deleted is not true and removed.order_id is null
