{{ config(
    materialized="incremental",
    incremental_strategy="append",
    pre_hook="{{ forget_stale(['marketplace', 'product_id', 'valid_from'], stale_price_periods()) }}",
    indexes=[{"columns": ["product_id", "valid_from", "marketplace"], "unique": true}],
) }}

with periods as (
    -- The periods that are not in the table: all of them, or those that the hook took out of it.
    select *
    from ({{ price_periods() }}) as every_period
    {% if is_incremental() -%}
        where not exists (
            select 1
            from {{ this }} as there
            where
                there.product_id = every_period.product_id
                and there.marketplace = every_period.marketplace
                and there.valid_from = every_period.valid_from
        )
    {%- endif %}
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
