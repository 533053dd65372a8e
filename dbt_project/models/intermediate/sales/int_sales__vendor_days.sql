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

returns as materialized (
    select
        refunds.marketplace,
        refunds.order_id,
        refunds.order_item_id,
        refunds.product_id
    from {{ ref("int_refunds__current") }} as refunds
    inner join parents on refunds.marketplace = parents.marketplace and refunds.order_id = parents.order_id
    where refunds.kind = 'return'
),

returned as (
    -- A refund that names no item is for the whole order.
    select distinct
        items.marketplace,
        items.order_id,
        items.vendor_id
    from returns
    inner join items
        on
            returns.marketplace = items.marketplace
            and returns.order_id = items.order_id
            and case
                when returns.order_item_id is not null then returns.order_item_id = items.order_item_id
                when returns.product_id is not null then returns.product_id = items.product_id
                else true
            end
),

sold as (
    select
        items.marketplace,
        items.vendor_id,
        items.ordered_on,
        items.is_sale,
        items.is_first_of_vendor as is_first,
        items.quantity,
        items.item_reporting_amount,
        parents.is_late,
        parents.status in ('delivered', 'returned') or parents.delivered_at is not null as is_delivered,
        parents.status = 'returned' or returned.order_id is not null as is_returned
    from items
    inner join parents on items.marketplace = parents.marketplace and items.order_id = parents.order_id
    left join returned
        on
            items.marketplace = returned.marketplace
            and items.order_id = returned.order_id
            and items.vendor_id = returned.vendor_id
)

select
    marketplace,
    vendor_id,
    ordered_on,
    (count(*) filter (where is_first))::integer as n_orders,
    (count(*) filter (where is_first and not is_sale))::integer as n_canceled_orders,
    (count(*) filter (where is_first and is_delivered))::integer as n_delivered_orders,
    (count(*) filter (where is_first and is_delivered and is_returned))::integer as n_returned_orders,
    (count(is_late) filter (where is_first))::integer as n_promised_orders,
    (count(*) filter (where is_first and is_late))::integer as n_late_orders,
    coalesce(sum(quantity) filter (where is_sale), 0)::bigint as n_units,
    coalesce(sum(item_reporting_amount) filter (where is_sale), 0) as item_reporting_amount
from sold
group by marketplace, vendor_id, ordered_on
