{{ config(materialized="incremental", touched="customers", indexes=[{"columns": ["customer_id"]}]) }}

select
    {{ marketplace("online_retail") }} as marketplace,
    customer_id,
    min(country) as region,
    false as is_deleted,
    max(known_at) as known_at,
    partition_on as known_on
from {{ raw("online_retail", "lines", "customers") }} as lines
where customer_id is not null and _deleted is not true
group by customer_id, partition_on
