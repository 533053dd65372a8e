-- The items of an order that its source removed are gone with it.
{{ config(post_hook="analyze {{ this }}") }}

with removed as (
    select *
    from {{ ref("int_orders__deleted") }}
)

select items.*
from ({{ newest(ref("int_order_items__versions"), ["marketplace", "order_id", "order_item_id"]) }}) as items
left join removed on items.marketplace = removed.marketplace and items.order_id = removed.order_id
where items.is_deleted is not true and removed.order_id is null
