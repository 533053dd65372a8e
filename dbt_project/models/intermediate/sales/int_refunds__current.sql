{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[
        {"columns": ["order_id", "refund_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "refunded_on"]},
    ],
) }}

{{ still_there("(" ~ union_sources("refunds") ~ ")", "refund_id") }}
