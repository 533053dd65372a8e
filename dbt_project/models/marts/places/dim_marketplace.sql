-- From the sources' YAML. Where several sources tell of a marketplace, the one with its orders speaks for it.
{{ config(indexes=[{"columns": ["marketplace"], "unique": true}]) }}

{%- set shops = {} %}
{%- for name, about in all_sources() | dictsort if about.provides | reject("in", ["rates", "holidays"]) | list %}
    {%- if about.marketplace not in shops or "orders" in about.provides %}
        {%- do shops.update({about.marketplace: name}) %}
    {%- endif %}
{%- endfor %}

with marketplaces as (
    {%- for marketplace, name in shops | dictsort %}
        {%- set about = all_sources()[name] %}
        select
            '{{ marketplace }}' as marketplace,
            '{{ name }}' as source,
            '{{ about.currency }}' as currency,
            {{ "'" ~ about.country ~ "'" if about.country else "null" }}::text as country
        {{ "union all" if not loop.last }}
    {%- endfor %}
)

select
    marketplaces.marketplace,
    marketplaces.source,
    marketplaces.currency,
    marketplaces.country,
    orders.first_order_on,
    orders.last_order_on
from marketplaces
-- Two looks into the index for each marketplace.
cross join lateral (
    select
        min(ordered_on) as first_order_on,
        max(ordered_on) as last_order_on
    from {{ ref("fact_order") }} as orders
    where orders.marketplace = marketplaces.marketplace
) as orders
