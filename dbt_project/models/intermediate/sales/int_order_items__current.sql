{{ config(post_hook="analyze {{ this }}") }}

{{ newest(ref("int_order_items__versions"), ["marketplace", "order_id", "order_item_id"]) }}
