-- A day of a marketplace and category has in rpt_sales_day, over vendors, the units and amounts of its products.
with products as (
    select
        built.marketplace,
        built.ordered_on,
        built.category,
        sum(built.n_units) as n_units,
        sum(built.item_amount) as item_amount,
        coalesce(sum(built.item_reporting_amount), 0) as item_reporting_amount
    from {{ touched_rows(ref("int_sales__product_days"), thing="days") }} as built
    where built.n_sold_items > 0
    group by built.marketplace, built.ordered_on, built.category
),

days as (
    select
        marketplace,
        date_on,
        category,
        sum(n_units) as n_units,
        sum(item_amount) as item_amount,
        coalesce(sum(item_reporting_amount), 0) as item_reporting_amount
    from {{ ref("rpt_sales_day") }}
    group by marketplace, date_on, category
)

select
    products.*,
    days.n_units as n_units_of_the_day,
    days.item_amount as item_amount_of_the_day,
    days.item_reporting_amount as item_reporting_amount_of_the_day
from products
left join days
    on
        products.marketplace = days.marketplace
        and products.ordered_on = days.date_on
        and products.category = days.category
where
    products.n_units is distinct from days.n_units
    or products.item_amount is distinct from days.item_amount
    or products.item_reporting_amount is distinct from days.item_reporting_amount
