-- Olist tells no time of payment: it is known with the purchase.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("olist") }} as marketplace,
    order_id,
    payment_sequential::text as payment_id,
    partition_on as paid_on,
    payment_type,
    payment_installments as n_installments,
    payment_value as payment_amount,
    {{ currency("olist") }} as currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("olist", "order_payments") }}
from {{ raw("olist", "order_payments") }} as order_payments
