-- Warned: orders whose amounts have no reporting amount, because no rate of their currency is known on their day
-- (docs/currency.md).
{{ config(severity="warn", meta={"severity": "warning"}) }}

select
    marketplace,
    currency,
    count(*) as n_orders,
    min(ordered_on) as first_ordered_on,
    max(ordered_on) as last_ordered_on
from {{ ref("fact_order") }}
where order_reporting_amount is null
group by marketplace, currency
