{{ config(indexes=[{"columns": ["date_on"], "unique": true}]) }}

{#- So many months later the fiscal year is the calendar year in which it ends. -#}
{%- set shift = (13 - var("fiscal_year_start_month") | int) % 12 %}

with days as (
    select
        day,
        date_trunc('month', day) + interval '{{ shift }} months' as fiscal_month
    from generate_series(
        '{{ var("calendar_from", "2010-01-01") }}'::timestamp,
        '{{ var("calendar_until", "2030-12-31") }}'::timestamp,
        interval '1 day'
    ) as days (day)
),

holidays as (
    select
        date_on,
        count(*)::integer as n_holidays
    from {{ ref("dim_holiday") }}
    group by date_on
),

-- Countries in which no marketplace trades on the day.
closed as (
    select
        holidays.date_on,
        count(distinct holidays.country) as n_countries
    from {{ ref("dim_holiday") }} as holidays
    inner join {{ ref("dim_marketplace") }} as marketplaces on holidays.country = marketplaces.country
    group by holidays.date_on
),

home as (
    select count(distinct country) as n_countries
    from {{ ref("dim_marketplace") }}
)

select
    days.day::date as date_on,
    extract(year from days.day)::integer as year,
    extract(quarter from days.day)::integer as quarter,
    extract(month from days.day)::integer as month,
    extract(isoyear from days.day)::integer as iso_year,
    extract(week from days.day)::integer as week,
    extract(day from days.day)::integer as day_of_month,
    extract(isodow from days.day)::integer as day_of_week,
    extract(doy from days.day)::integer as day_of_year,
    extract(isodow from days.day) in (6, 7) as is_weekend,
    date_trunc('month', days.day)::date as month_on,
    date_trunc('week', days.day)::date as week_on,
    extract(year from days.fiscal_month)::integer as fiscal_year,
    extract(quarter from days.fiscal_month)::integer as fiscal_quarter,
    extract(month from days.fiscal_month)::integer as fiscal_month,
    extract(isodow from days.day) not in (6, 7)
    and (closed.n_countries is null or closed.n_countries < home.n_countries) as is_trading_day,
    coalesce(holidays.n_holidays, 0) as n_holidays
from days
cross join home
left join holidays on days.day::date = holidays.date_on
left join closed on days.day::date = closed.date_on
