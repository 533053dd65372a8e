-- A region that is the name of a country is that country, one that the seed knows as no country is in none; any other
-- lies in the marketplace's own.
{{ config(indexes=[{"columns": ["region", "marketplace"], "unique": true}]) }}

with seen as (
    select
        region_marketplace as marketplace,
        region
    from {{ ref("dim_customer") }}
    union
    select
        marketplace,
        region
    from {{ ref("dim_vendor") }}
),

placed as (
    select
        seen.marketplace,
        seen.region,
        countries.country is not null as is_country,
        case when countries.country_name is null then marketplaces.country else countries.country end as country
    from seen
    left join {{ ref("countries") }} as countries on lower(seen.region) = lower(countries.country_name)
    left join {{ ref("dim_marketplace") }} as marketplaces on seen.marketplace = marketplaces.marketplace
    where seen.marketplace is not null and seen.region is not null
)

select
    placed.marketplace,
    placed.region,
    coalesce(regions.region_name, placed.region) as region_name,
    placed.is_country,
    placed.country,
    names.country_name,
    names.currency
from placed
left join {{ ref("countries") }} as names on placed.country = names.country and names.is_main_name
left join {{ ref("regions") }} as regions on placed.country = regions.country and placed.region = regions.region
