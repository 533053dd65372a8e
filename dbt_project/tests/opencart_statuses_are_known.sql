-- Warned: a status that the shop added means nothing here until the macro opencart_statuses names it. 9 (canceled
-- reversal) is left out there on purpose.
{{ config(severity="warn", meta={"severity": "warning"}) }}

select
    order_status_id,
    count(*) as n_rows
from {{ source("opencart", "oc_order_history") }}
where order_status_id not in (9, {{ opencart_statuses().keys() | join(", ") }})
group by order_status_id
