{{ config(materialized="incremental", touched="customers", indexes=[{"columns": ["customer_id"]}]) }}

select
    {{ marketplace("olist") }} as marketplace,
    customer_unique_id as customer_id,
    customer_state as region,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("olist", "customers") }}
from {{ raw("olist", "customers", "customers") }} as customers
