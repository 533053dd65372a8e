-- Warned: of a marketplace's orders that were paid for, more than one in a hundred differs from its payments for no
-- known reason. A marketplace with fewer than a hundred orders may have one.
{{ config(severity="warn", meta={"severity": "warning"}) }}

select
    marketplace,
    count(*) filter (where explanation = 'unexplained') as n_unexplained,
    count(*) as n_orders
from {{ ref("rpt_order_reconciliation") }}
where paid_amount is not null
group by marketplace
having count(*) filter (where explanation = 'unexplained') > greatest(1, 0.01 * count(*))
