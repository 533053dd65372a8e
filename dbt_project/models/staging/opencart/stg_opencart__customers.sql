-- Known by their orders, guests too: the shop's own customer table has no region.
{{ config(materialized="incremental", touched="customers", indexes=[{"columns": ["customer_id"]}]) }}

select distinct on (email, partition_on)
    {{ marketplace("opencart") }} as marketplace,
    email as customer_id,
    coalesce(nullif(shipping_zone, ''), nullif(payment_zone, ''), nullif(shipping_country, ''), payment_country)
        as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("opencart", "oc_order", "customers") }} as oc_order
where order_status_id <> 0 and email is not null and not _deleted
order by email asc, partition_on asc, known_at desc, order_id desc
