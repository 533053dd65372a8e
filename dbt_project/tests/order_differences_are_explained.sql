-- Warned: of a marketplace's orders that were paid for, more than one in a hundred differs from its payments for no
-- known reason. A marketplace with fewer than a hundred orders may have one. n_orders are the paid ones.
{{ config(severity="warn", meta={"severity": "warning"}) }}

with unexplained as (
    select
        marketplace,
        count(*) as n_unexplained
    from {{ ref("rpt_order_reconciliation") }}
    where explanation = 'unexplained'
    group by marketplace
    having count(*) > 1
),

paid as (
    select
        marketplace,
        n_unexplained,
        {{ count_up_to(
            "100 * unexplained.n_unexplained",
            ref("rpt_order_reconciliation"),
            "orders.marketplace = unexplained.marketplace and orders.paid_amount is not null",
            name="orders"
        ) }} as n_orders
    from unexplained
)

select *
from paid
where n_orders < 100 * n_unexplained
