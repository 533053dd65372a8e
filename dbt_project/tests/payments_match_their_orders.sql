-- Warned: per marketplace, what was paid and what the paid orders amount to differ by more than 10%. Taxes and
-- coupons are in the payments only, so some difference is right.
{{ config(severity="warn", meta={"severity": "warning"}) }}

with payments as (
    select
        marketplace,
        order_id,
        sum(payment_amount) as payment_amount
    from {{ ref("fact_payment") }}
    group by marketplace, order_id
)

select
    orders.marketplace,
    sum(payments.payment_amount) as payment_amount,
    sum(orders.order_amount) as order_amount
from {{ ref("fact_order") }} as orders
inner join payments
    on orders.marketplace = payments.marketplace and orders.order_id = payments.order_id
group by orders.marketplace
having abs(sum(payments.payment_amount) - sum(orders.order_amount)) > 0.1 * sum(orders.order_amount)
