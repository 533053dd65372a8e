-- The refunds of an order that its source removed are gone with it.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "refund_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "refunded_on"]},
    ],
) }}

with refunds as (
    select *
    from ({{ union_sources("refunds") }}) as told
    where {{ where_touched("orders", "told") }}
),

removed as (
    select *
    from {{ ref("int_orders__deleted") }}
    where {{ where_touched("orders") }}
)

select newest.*
from ({{ newest("refunds", ["marketplace", "order_id", "refund_id"]) }}) as newest
left join removed on newest.marketplace = removed.marketplace and newest.order_id = removed.order_id
where newest.is_deleted is not true and removed.order_id is null
