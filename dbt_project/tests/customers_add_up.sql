-- A customer's row in rpt_customer_360 and in dim_customer has the orders and amounts of all of their months.
with months as (
    select
        built.customer_id,
        sum(built.n_orders) as n_orders,
        sum(built.n_canceled_orders) as n_canceled_orders,
        coalesce(sum(item_reporting_amount), 0) as item_reporting_amount
    from {{ touched_rows(ref("int_customers__months"), thing="buyers") }} as built
    group by customer_id
),

reports as (
    select
        customer_id,
        reports.n_orders,
        reports.n_canceled_orders,
        reports.item_reporting_amount,
        customers.n_orders as n_orders_of_dim
    from {{ touched_rows(ref("rpt_customer_360"), thing="buyers") }} as reports
    full join {{ touched_rows(ref("dim_customer"), thing="buyers") }} as customers using (customer_id)
)

select
    customer_id,
    months.n_orders,
    reports.n_orders as n_orders_of_report,
    reports.n_orders_of_dim,
    months.n_canceled_orders,
    reports.n_canceled_orders as n_canceled_orders_of_report,
    months.item_reporting_amount,
    reports.item_reporting_amount as item_reporting_amount_of_report
from reports
full join months using (customer_id)
where
    (
        coalesce(months.n_orders, 0),
        coalesce(months.n_orders, 0),
        coalesce(months.n_canceled_orders, 0),
        coalesce(months.item_reporting_amount, 0)
    ) is distinct from (
        reports.n_orders, reports.n_orders_of_dim, reports.n_canceled_orders, reports.item_reporting_amount
    )
