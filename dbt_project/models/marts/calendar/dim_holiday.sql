{{ config(indexes=[{"columns": ["date_on", "country"], "unique": true}]) }}

with versions as (
    {{ union_sources("holidays") }}
),

holidays as (
    {{ newest("versions", ["country", "holiday_on", "name"]) }}
)

select
    country,
    holiday_on as date_on,
    string_agg(distinct name, '; ' order by name) as holiday_name
from holidays
where is_deleted is not true
group by country, holiday_on
