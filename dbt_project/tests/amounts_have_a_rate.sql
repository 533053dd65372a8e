-- Warned: days whose sales have no reporting amount, because no rate of their currency is known on them
-- (docs/currency.md).
{{ config(severity="warn", meta={"severity": "warning"}) }}

select
    marketplace,
    currency,
    count(distinct date_on) as n_days,
    sum(n_units) as n_units,
    min(date_on) as first_on,
    max(date_on) as last_on
from {{ ref("rpt_sales_day") }}
where item_reporting_amount is null
group by marketplace, currency
