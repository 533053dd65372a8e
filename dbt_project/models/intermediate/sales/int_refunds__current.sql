{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "refund_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "refunded_on"]},
    ],
) }}

{{ still_there("(" ~ union_sources("refunds") ~ ")", "refund_id") }}
