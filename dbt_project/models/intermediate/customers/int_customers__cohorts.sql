-- Of months in which a customer has another row. They are read from the index that has these columns: the rows of a
-- month are on all pages of the table.
{{ config(
    materialized="incremental",
    incremental_strategy="stale",
    stale=["month_on"],
    pre_hook="{{ find_stale(['month_on'], touched_months_of_customers()) }}",
    indexes=[{"columns": ["month_on", "marketplace", "cohort_month", "all_cohort_month"], "unique": true}],
) }}

select
    months.month_on,
    months.marketplace,
    months.cohort_month,
    months.all_cohort_month,
    count(*) as n_active_customers,
    count(*) filter (where months.is_first_of_month) as n_all_active_customers,
    sum(months.n_orders) as n_orders,
    coalesce(sum(months.item_reporting_amount), 0) as item_reporting_amount
from {{ ref("int_customers__months") }} as months
where months.n_orders > 0 and {{ where_stale(["month_on"], "months") }}
group by months.month_on, months.marketplace, months.cohort_month, months.all_cohort_month
