{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[
        {"columns": ["order_id", "refund_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "refunded_on"]},
        {"columns": ["customer_id"]},
        {"columns": ["marketplace", "vendor_id", "refunded_on"]},
    ],
) }}

with orders as (
    select * from {{ ref("fact_order") }}
    where {{ where_touched("contents") }}
),

items as (
    select * from {{ ref("int_order_items__current") }}
    where {{ where_touched("contents") }}
),

refunds as (
    select * from {{ ref("int_refunds__current") }}
    where {{ where_touched("contents") }}
),

first_canceled as (
    select distinct on (marketplace, order_id)
        marketplace,
        order_id,
        known_on,
        known_at
    from {{ ref("int_orders__versions") }}
    where status = 'canceled' and is_deleted is not true and {{ where_touched("contents") }}
    order by marketplace asc, order_id asc, known_on asc
),

taken_back as (
    select
        refunds.refund_id,
        refunds.marketplace,
        refunds.order_id,
        refunds.order_item_id,
        coalesce(refunds.product_id, items.product_id) as product_id,
        items.vendor_id,
        orders.customer_id,
        refunds.kind,
        refunds.status,
        refunds.refunded_on,
        refunds.quantity,
        refunds.refund_amount,
        refunds.currency,
        refunds.reason,
        refunds.known_at
    from refunds
    left join orders on refunds.marketplace = orders.marketplace and refunds.order_id = orders.order_id
    left join items
        on
            refunds.marketplace = items.marketplace
            and refunds.order_id = items.order_id
            and refunds.order_item_id = items.order_item_id
    union all
    -- An order that is canceled now; one that is itself negative takes another back and is no sale to cancel.
    select
        'cancel:' || orders.order_id as refund_id,
        orders.marketplace,
        orders.order_id,
        null as order_item_id,
        null as product_id,
        null as vendor_id,
        orders.customer_id,
        'cancellation' as kind,
        'canceled' as status,
        first_canceled.known_on as refunded_on,
        null as quantity,
        orders.order_amount as refund_amount,
        orders.currency,
        null as reason,
        first_canceled.known_at
    from orders
    inner join first_canceled
        on orders.marketplace = first_canceled.marketplace and orders.order_id = first_canceled.order_id
    where orders.status = 'canceled' and (orders.n_items = 0 or orders.order_amount > 0)
)

select
    taken_back.refund_id,
    taken_back.marketplace,
    taken_back.order_id,
    taken_back.order_item_id,
    taken_back.product_id,
    taken_back.vendor_id,
    taken_back.customer_id,
    taken_back.kind,
    taken_back.status,
    taken_back.refunded_on,
    taken_back.quantity,
    taken_back.refund_amount,
    taken_back.currency,
    {{ reporting("taken_back.refund_amount", "rates.rate") }} as refund_reporting_amount,
    {{ reporting_currency() }} as reporting_currency,
    taken_back.reason,
    taken_back.known_at
from taken_back
left join {{ ref("int_currency__rates") }} as rates
    on taken_back.currency = rates.currency and taken_back.refunded_on = rates.rate_on
