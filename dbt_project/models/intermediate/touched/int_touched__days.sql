-- depends_on: {{ ref("int_products__categories") }}
{{ config(indexes=[{"columns": ["date_on", "marketplace"]}]) }}

with touched as (
    select * from {{ ref("int_touched__sales") }}
),

days as (
    select
        marketplace,
        ordered_on_before as date_on,
        days_back,
        is_other_sale
    from touched
    union
    select
        orders.marketplace,
        orders.ordered_on,
        touched.days_back,
        touched.is_other_sale
    from {{ ref("int_orders__current") }} as orders
    inner join touched on orders.marketplace = touched.marketplace and orders.order_id = touched.order_id
    union
    select
        items.marketplace,
        items.ordered_on,
        touched.days_back,
        touched.is_other_sale
    from {{ ref("int_order_items__current") }} as items
    inner join touched on items.marketplace = touched.marketplace and items.order_id = touched.order_id
    union
    -- The days on which a product was sold whose categories are others now.
    select
        sold.marketplace,
        sold.ordered_on,
        null as days_back,
        true as is_other_sale
    from {{ left_by_last_build("int_sales__product_days", {
        "marketplace": "text", "product_id": "text", "ordered_on": "date"
    }) }} as sold
    inner join ops.touched_work as work on sold.marketplace = work.source and sold.product_id = work.key
    where work.thing = 'product_categories'
)

select
    marketplace,
    date_on,
    date_trunc('month', date_on)::date as month_on,
    days_back,
    is_other_sale
from days
where date_on is not null
