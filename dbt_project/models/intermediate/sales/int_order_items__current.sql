{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "order_item_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
    ],
) }}

{{ still_there(ref("int_order_items__versions"), "order_item_id") }}
