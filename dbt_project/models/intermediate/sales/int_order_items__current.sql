-- The items of an order that its source removed are gone with it.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "order_item_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
    ],
) }}

with versions as (
    select *
    from {{ ref("int_order_items__versions") }}
    where {{ where_touched("orders") }}
),

removed as (
    select *
    from {{ ref("int_orders__deleted") }}
    where {{ where_touched("orders") }}
)

select items.*
from ({{ newest("versions", ["marketplace", "order_id", "order_item_id"]) }}) as items
left join removed on items.marketplace = removed.marketplace and items.order_id = removed.order_id
where items.is_deleted is not true and removed.order_id is null
