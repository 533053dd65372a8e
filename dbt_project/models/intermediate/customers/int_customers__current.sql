-- A person may buy in several marketplaces: the newest sighting with a region tells where they are. What a
-- marketplace said of a person that it removed counts no more, unless they came back.
{{ config(
    materialized="incremental",
    touched="customers",
    indexes=[{"columns": ["customer_id"], "unique": true}],
) }}

with customers as (
    select *
    from ({{ union_sources("customers") }}) as told
    where {{ where_touched("customers", "told") }}
)

select distinct on (customer_id)
    customer_id,
    region,
    case when region is not null then marketplace end as region_marketplace
from customers
where
    not exists (
        select 1
        from customers as removed
        where
            removed.is_deleted
            and removed.marketplace = customers.marketplace
            and removed.customer_id = customers.customer_id
            and (removed.known_at, removed.known_on) >= (customers.known_at, customers.known_on)
    )
order by customer_id asc, (region is null) asc, known_at desc, known_on desc, marketplace asc, region asc
