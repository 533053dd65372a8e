-- A rate holds until the next one; the newest holds up to the newest business day that was loaded, so that what happens
-- on a weekend has a rate. Rates that stopped coming show in the test rates_are_fresh.
{{ config(
    materialized="incremental",
    incremental_strategy="tracked",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    tracks={"source": "''", "thing": "'rates'", "key": "currency || ' ' || rate_on"},
    indexes=[{"columns": ["rate_on", "currency"], "unique": true}],
) }}

{%- set always -%}
    generate_series(
        '{{ var("rates_from", "2000-01-01") }}'::timestamp,
        '{{ var("rates_until", "2039-12-31") }}'::timestamp,
        interval '1 day'
    ) as days (rate_on)
{%- endset %}

with versions as (
    {{ union_sources("rates") }}
),

newest_day as (
    select
        greatest(
            -- As far as a rate is told again: where nothing says what was loaded, weekends have rates all the same.
            max(rate_on) + 7,
            {{ newest_loaded_day() }}
        ) as rate_on
    from versions
),

told as (
    select
        currency,
        rate_on,
        eur_per_unit,
        lead(rate_on) over (partition by currency order by rate_on) as next_on
    from ({{ newest("versions", ["currency", "rate_on"]) }}) as newest
    where is_deleted is not true and eur_per_unit > 0
),

in_euro as (
    select
        told.currency,
        days.rate_on::date as rate_on,
        told.eur_per_unit
    from told
    cross join newest_day
    cross join
        lateral generate_series(
            told.rate_on::timestamp,
            coalesce(told.next_on - 1, newest_day.rate_on)::timestamp,
            interval '1 day'
        ) as days (rate_on)
    where told.currency <> 'EUR'
    union all
    select
        'EUR' as currency,
        days.rate_on::date as rate_on,
        1 as eur_per_unit
    from {{ always }}
)

select
    in_euro.currency,
    in_euro.rate_on,
    -- Twelve decimals: the smallest units are worth less than a ten-thousandth of a euro.
    round(in_euro.eur_per_unit / reporting.eur_per_unit, 12)::numeric(24, 12) as rate
from in_euro
inner join in_euro as reporting
    on in_euro.rate_on = reporting.rate_on and reporting.currency = {{ reporting_currency() }}
{%- if var("reporting_currency") != "EUR" %}
    where in_euro.currency <> {{ reporting_currency() }}
    union all
    select
        {{ reporting_currency() }} as currency,
        days.rate_on::date as rate_on,
        1::numeric(24, 12) as rate
    from {{ always }}
{%- endif %}
