-- A person may buy in several marketplaces: the newest sighting with a region tells where they are.
{{ config(materialized="view") }}

with customers as (
    {{ union_sources("customers") }}
)

select distinct on (customer_id)
    customer_id,
    region,
    known_at
from customers
order by customer_id asc, (region is null) asc, known_at desc, known_on desc, marketplace asc, region asc
