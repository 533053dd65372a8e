-- A customer is known from orders alone, and stays when one of them is removed.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["customer_id"]}, {"columns": ["order_id"]}],
) }}

select
    {{ marketplace("marketplace_api") }} as marketplace,
    order_id,
    customer_email as customer_id,
    customer_region as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("marketplace_api", "orders", "orders") }} as orders
where customer_email is not null and not _deleted
-- Read by customers, each of whom has a row for each order: they lie next to each other.
order by customer_id
