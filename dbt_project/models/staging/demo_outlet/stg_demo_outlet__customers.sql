-- A customer is known by orders, and stays when one of them is removed.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["customer_id"]}, {"columns": ["order_id"]}],
) }}

select distinct on (customer_email, order_id, customer_region)
    {{ marketplace("demo_outlet") }} as marketplace,
    order_id,
    customer_email as customer_id,
    customer_region as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("demo_outlet", "orders", "orders") }} as orders
where customer_email is not null and _deleted is not true
-- Each version of an order is a sighting; the newest one says all that those of the same region say. In the order of
-- customers, by whom they are read: they lie next to each other.
order by customer_email asc, order_id asc, customer_region asc, known_at desc, partition_on desc
