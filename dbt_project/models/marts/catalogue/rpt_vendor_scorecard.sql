-- Empirical Bayes: a vendor's rate is drawn from a beta distribution that all vendors of the marketplace share, so that
-- 1 late order of 2 does not look worse than 300 of 1000. Its mean is the marketplace's rate; its strength (alpha +
-- beta) is Kleinman's moment estimate (JASA 68, 1973, 46-54), between 1 and 1000 orders.
{{ config(indexes=[{"columns": ["vendor_id", "marketplace"], "unique": true}]) }}

with newest as (
    select
        marketplace,
        max(ordered_on) as to_on
    from {{ ref("int_sales__vendor_days") }}
    group by marketplace
),

vendors as (
    select
        days.marketplace,
        days.vendor_id,
        newest.to_on - {{ var("scorecard_days") }} + 1 as from_on,
        newest.to_on,
        sum(days.n_orders) as n_orders,
        sum(days.n_canceled_orders) as n_canceled_orders,
        sum(days.n_delivered_orders) as n_delivered_orders,
        sum(days.n_returned_orders) as n_returned_orders,
        sum(days.n_promised_orders) as n_promised_orders,
        sum(days.n_late_orders) as n_late_orders,
        sum(days.n_units) as n_units,
        sum(days.item_reporting_amount) as item_reporting_amount
    from {{ ref("int_sales__vendor_days") }} as days
    inner join newest on days.marketplace = newest.marketplace
    where days.ordered_on > newest.to_on - {{ var("scorecard_days") }}
    group by days.marketplace, days.vendor_id, newest.to_on
),

counts as (
    select
        marketplace,
        'late' as measure,
        n_late_orders::numeric as x,
        n_promised_orders::numeric as n
    from vendors
    where n_promised_orders > 0
    union all
    select
        marketplace,
        'canceled' as measure,
        n_canceled_orders::numeric as x,
        n_orders::numeric as n
    from vendors
    where n_orders > 0
    union all
    select
        marketplace,
        'returned' as measure,
        n_returned_orders::numeric as x,
        n_delivered_orders::numeric as n
    from vendors
    where n_delivered_orders > 0
),

moments as (
    -- Exact numbers, whose sums do not depend on the order of the rows.
    select
        marketplace,
        measure,
        sum(x) / sum(n) as mean,
        count(*) - 1 as n_others,
        sum(n) - sum(n * n) / sum(n) as spread,
        sum(x * x / n) - sum(x) * sum(x) / sum(n) as scatter
    from counts
    group by marketplace, measure
),

correlations as (
    -- What the vendors' rates scatter more than chance alone would have them.
    select
        *,
        (scatter / nullif(mean * (1 - mean), 0) - n_others) / nullif(spread - n_others, 0) as correlation
    from moments
),

priors as (
    select
        marketplace,
        measure,
        round(mean, 6) as rate,
        case
            when correlation > 0 then round(least(greatest(1 / correlation - 1, 1), 1000), 6)
            else 1000
        end as strength
    from correlations
)

select
    vendors.marketplace,
    vendors.vendor_id,
    vendors.from_on,
    vendors.to_on,
    vendors.n_orders::integer as n_orders,
    vendors.n_units::bigint as n_units,
    vendors.item_reporting_amount,
    {{ reporting_currency() }} as reporting_currency,
    vendors.n_promised_orders::integer as n_promised_orders,
    vendors.n_late_orders::integer as n_late_orders,
    {{ shrunk_rate("late", "n_late_orders", "n_promised_orders") }},
    vendors.n_canceled_orders::integer as n_canceled_orders,
    {{ shrunk_rate("canceled", "n_canceled_orders", "n_orders") }},
    vendors.n_delivered_orders::integer as n_delivered_orders,
    vendors.n_returned_orders::integer as n_returned_orders,
    {{ shrunk_rate("returned", "n_returned_orders", "n_delivered_orders") }}
from vendors
left join priors as late
    on vendors.marketplace = late.marketplace and late.measure = 'late'
left join priors as canceled
    on vendors.marketplace = canceled.marketplace and canceled.measure = 'canceled'
left join priors as returned
    on vendors.marketplace = returned.marketplace and returned.measure = 'returned'
