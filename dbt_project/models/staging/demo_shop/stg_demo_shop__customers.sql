-- Known by their orders: the shop's own customer table is not read. They stay when an order is removed.
{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["customer_id"]}, {"columns": ["order_id"]}],
) }}

select
    {{ marketplace("demo_shop") }} as marketplace,
    order_id::text as order_id,
    email as customer_id,
    shipping_zone as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("demo_shop", "oc_order", "orders") }} as oc_order
where order_status_id <> 0 and email is not null and _deleted is not true
-- Read by customers, each of whom has a row for each order: they lie next to each other.
order by customer_id
