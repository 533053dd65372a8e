{{ config(indexes=[{"columns": ["date_on"], "unique": true}]) }}

select
    day::date as date_on,
    extract(year from day)::integer as year,
    extract(quarter from day)::integer as quarter,
    extract(month from day)::integer as month,
    extract(isoyear from day)::integer as iso_year,
    extract(week from day)::integer as week,
    extract(day from day)::integer as day_of_month,
    extract(isodow from day)::integer as day_of_week,
    extract(doy from day)::integer as day_of_year,
    extract(isodow from day) in (6, 7) as is_weekend,
    date_trunc('month', day)::date as month_on,
    date_trunc('week', day)::date as week_on
from generate_series('2010-01-01'::timestamp, '2030-12-31'::timestamp, interval '1 day') as days (day)
