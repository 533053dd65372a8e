{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[
        {"columns": ["order_id", "payment_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "paid_on"]},
    ],
) }}

{{ still_there("(" ~ union_sources("payments") ~ ")", "payment_id") }}
