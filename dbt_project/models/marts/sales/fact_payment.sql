{{ config(indexes=[{"columns": ["order_id", "payment_id", "marketplace"], "unique": true}]) }}

select
    order_id,
    payment_id,
    marketplace,
    paid_on,
    payment_type,
    n_installments,
    payment_amount,
    currency,
    known_at
from {{ ref("int_payments__current") }}
