{{ config(
    materialized="incremental",
    touched="days",
    indexes=[{"columns": ["ordered_on", "marketplace", "vendor_id"], "unique": true}],
) }}

with items as not materialized (
    select *
    from {{ ref("int_order_items__current") }}
    where vendor_id is not null and {{ where_touched("days") }}
),

-- An order is of the day of its items: of an item whose order is unknown nothing is to be told yet.
parents as (
    select
        marketplace,
        order_id,
        status,
        delivered_at,
        {{ utc_day("delivered_at") }} > {{ utc_day("estimated_delivery_at") }} as is_late
    from {{ ref("int_orders__current") }}
    where {{ where_touched("days") }}
),

returned as (
    -- A refund that names no item is for the whole order.
    select distinct
        items.marketplace,
        items.order_id,
        items.vendor_id
    from {{ ref("int_refunds__current") }} as refunds
    inner join items
        on
            refunds.marketplace = items.marketplace
            and refunds.order_id = items.order_id
            and case
                when refunds.order_item_id is not null then refunds.order_item_id = items.order_item_id
                when refunds.product_id is not null then refunds.product_id = items.product_id
                else true
            end
    where refunds.kind = 'return'
),

orders as (
    select
        items.marketplace,
        items.vendor_id,
        items.ordered_on,
        items.order_id,
        items.is_sale,
        parents.is_late,
        parents.status in ('delivered', 'returned') or parents.delivered_at is not null as is_delivered,
        parents.status = 'returned' or bool_or(returned.order_id is not null) as is_returned,
        sum(items.quantity) as n_units,
        sum(items.item_reporting_amount) as item_reporting_amount
    from items
    inner join parents on items.marketplace = parents.marketplace and items.order_id = parents.order_id
    left join returned
        on
            items.marketplace = returned.marketplace
            and items.order_id = returned.order_id
            and items.vendor_id = returned.vendor_id
    group by
        items.marketplace,
        items.vendor_id,
        items.ordered_on,
        items.order_id,
        items.is_sale,
        parents.status,
        parents.is_late,
        parents.delivered_at
)

select
    marketplace,
    vendor_id,
    ordered_on,
    count(*)::integer as n_orders,
    (count(*) filter (where not is_sale))::integer as n_canceled_orders,
    (count(*) filter (where is_delivered))::integer as n_delivered_orders,
    (count(*) filter (where is_delivered and is_returned))::integer as n_returned_orders,
    (count(is_late))::integer as n_promised_orders,
    (count(*) filter (where is_late))::integer as n_late_orders,
    coalesce(sum(n_units) filter (where is_sale), 0)::bigint as n_units,
    coalesce(sum(item_reporting_amount) filter (where is_sale), 0) as item_reporting_amount
from orders
group by marketplace, vendor_id, ordered_on
