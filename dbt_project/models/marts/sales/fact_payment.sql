{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[
        {"columns": ["order_id", "payment_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "paid_on"]},
    ],
    meta={"lookback_days": 1},
) }}

with payments as (
    select *
    from {{ ref("int_payments__current") }}
    where {{ where_touched("contents") }}
),

rates as (
    select * from {{ ref("int_currency__rates") }}
)

select
    payments.order_id,
    payments.payment_id,
    payments.marketplace,
    payments.paid_on,
    payments.payment_type,
    payments.n_installments,
    payments.payment_amount,
    payments.currency,
    payments.known_at,
    {{ reporting("payments.payment_amount", "rates.rate") }} as payment_reporting_amount,
    {{ reporting_currency() }} as reporting_currency
from payments
left join rates on payments.currency = rates.currency and payments.paid_on = rates.rate_on
