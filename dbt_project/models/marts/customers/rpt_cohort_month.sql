{{ config(indexes=[{"columns": ["cohort_month", "marketplace", "months_since"], "unique": true}]) }}

with sums as (
    select * from {{ ref("int_customers__cohorts") }}
),

cells as (
    select
        marketplace,
        cohort_month,
        month_on,
        sum(n_active_customers)::integer as n_active_customers,
        sum(n_orders)::integer as n_orders,
        sum(item_reporting_amount) as item_reporting_amount
    from sums
    group by marketplace, cohort_month, month_on
    union all
    select
        'all' as marketplace,
        all_cohort_month as cohort_month,
        month_on,
        sum(n_all_active_customers)::integer as n_active_customers,
        sum(n_orders)::integer as n_orders,
        sum(item_reporting_amount) as item_reporting_amount
    from sums
    group by all_cohort_month, month_on
),

newest as (
    select
        marketplace,
        max(month_on)::timestamp as newest_month
    from cells
    group by marketplace
),

grid as (
    -- A month in which nobody of the cohort came back is a row of zeros, or averages over cohorts would leave it out.
    select
        cohorts.marketplace,
        cohorts.cohort_month,
        cohorts.n_active_customers as n_customers,
        generate_series(cohorts.cohort_month::timestamp, newest.newest_month, interval '1 month')::date as month_on
    from cells as cohorts
    inner join newest on cohorts.marketplace = newest.marketplace
    where cohorts.month_on = cohorts.cohort_month
),

counted as (
    select
        grid.marketplace,
        grid.cohort_month,
        (
            (extract(year from grid.month_on) - extract(year from grid.cohort_month)) * 12
            + extract(month from grid.month_on) - extract(month from grid.cohort_month)
        )::integer as months_since,
        grid.n_customers,
        coalesce(cells.n_active_customers, 0) as n_active_customers,
        coalesce(cells.n_orders, 0) as n_orders,
        coalesce(cells.item_reporting_amount, 0) as item_reporting_amount
    from grid
    left join cells
        on
            grid.marketplace = cells.marketplace
            and grid.cohort_month = cells.cohort_month
            and grid.month_on = cells.month_on
)

select
    marketplace,
    cohort_month,
    months_since,
    n_customers,
    n_active_customers,
    {{ share("n_active_customers", "n_customers") }} as retention_share,
    n_orders,
    item_reporting_amount,
    sum(item_reporting_amount) over (
        partition by marketplace, cohort_month order by months_since
    ) as cumulative_item_reporting_amount,
    {{ reporting_currency() }} as reporting_currency
from counted
