-- Warned: days whose sales have no reporting amount, because no rate of their currency is known on them
-- (docs/currency.md).
{{ config(severity="warn", meta={"severity": "warning"}) }}

with days as (
    select
        marketplace,
        currency,
        date_on,
        sum(n_units) as n_units
    from {{ ref("rpt_sales_day") }}
    where item_reporting_amount is null
    group by marketplace, currency, date_on
)

select
    marketplace,
    currency,
    count(*) as n_days,
    sum(n_units) as n_units,
    min(date_on) as first_on,
    max(date_on) as last_on
from days
group by marketplace, currency
