-- One payment per order: its total, paid at the checkout.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("demo_shop") }} as marketplace,
    order_id::text as order_id,
    '1' as payment_id,
    {{ utc_day("date_added") }} as paid_on,
    replace(lower(payment_method), ' ', '_') as payment_type,
    1 as n_installments,
    total as payment_amount,
    {{ currency("demo_shop") }} as currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("demo_shop", "oc_order") }} as oc_order
where order_status_id <> 0
