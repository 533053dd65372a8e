{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("marketplace_api") }} as marketplace,
    order_id,
    payment_id,
    {{ utc_day("paid_at") }} as paid_on,
    method as payment_type,
    installments as n_installments,
    amount as payment_amount,
    currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("marketplace_api", "payments") }} as payments
