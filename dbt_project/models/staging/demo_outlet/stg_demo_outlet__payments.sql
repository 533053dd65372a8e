{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("demo_outlet") }} as marketplace,
    order_id,
    payment_id,
    {{ utc_day("paid_at") }} as paid_on,
    payment_type,
    installments as n_installments,
    amount as payment_amount,
    {{ currency("demo_outlet") }} as currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "payments") }}
from {{ raw("demo_outlet", "payments") }} as payments
