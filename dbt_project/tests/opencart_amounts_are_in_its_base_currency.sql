-- The currency in opencart.yaml is the shop's base currency, that is, the one with the rate 1.
select
    code,
    value
from {{ source("opencart", "oc_currency") }}
where
    partition_on = (select max(partition_on) from {{ source("opencart", "oc_currency") }})
    and code = {{ currency("opencart") }}
    and value::numeric(18, 8) <> 1
