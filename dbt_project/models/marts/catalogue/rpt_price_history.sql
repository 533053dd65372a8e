{{ config(
    materialized="incremental",
    incremental_strategy="stale",
    stale=["marketplace", "product_id", "valid_from"],
    pre_hook="{{ find_stale(['marketplace', 'product_id', 'valid_from'], stale_price_periods()) }}",
    indexes=[{"columns": ["product_id", "valid_from", "marketplace"], "unique": true}],
) }}

with periods as (
    select every_period.*
    from ({{ price_periods() }}) as every_period
    where {{ where_stale(["marketplace", "product_id", "valid_from"], "every_period") }}
)

select
    periods.*,
    coalesce(sales.n_units_before, 0)::bigint as n_units_28_days_before,
    coalesce(sales.n_units_after, 0)::bigint as n_units_28_days_after
from periods
left join lateral (
    select
        sum(days.n_units) filter (where days.ordered_on < periods.valid_from) as n_units_before,
        sum(days.n_units) filter (where days.ordered_on >= periods.valid_from) as n_units_after
    from {{ ref("int_sales__product_days") }} as days
    where
        days.product_id = periods.product_id
        and days.marketplace = periods.marketplace
        and days.ordered_on between periods.valid_from - 28 and periods.valid_from + 27
) as sales on true
