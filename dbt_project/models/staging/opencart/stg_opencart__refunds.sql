-- Returns as of each day. OpenCart does not say what was paid back: where the return's action is a refund (1) or a
-- credit (2), it is what the returned units of the order's item cost, with tax; a replacement (3) pays nothing back.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with items as (
    select distinct on (order_id, product_id)
        order_id,
        product_id,
        order_product_id,
        price + coalesce(tax, 0) as unit_amount
    from {{ raw("opencart", "oc_order_product") }} as oc_order_product
    where not _deleted
    order by order_id asc, product_id asc, partition_on desc, known_at desc, order_product_id asc
)

select
    {{ marketplace("opencart") }} as marketplace,
    returns.return_id::text as refund_id,
    returns.order_id::text as order_id,
    items.order_product_id as order_item_id,
    returns.product_id::text as product_id,
    'return' as kind,
    case returns.return_status_id
        when 1 then 'pending'
        when 2 then 'awaiting_products'
        when 3 then 'complete'
    end as status,
    {{ utc_day("case when returns.return_action_id > 0 then coalesce(returns.date_modified, returns.date_added) "
               "else returns.date_added end") }} as refunded_on,
    returns.quantity,
    case when returns.return_action_id in (1, 2) then returns.quantity * items.unit_amount end as refund_amount,
    {{ currency("opencart") }} as currency,
    -- By the ids of OpenCart's installer; those that a shop added keep their number.
    case returns.return_reason_id
        when 1 then 'dead_on_arrival'
        when 2 then 'wrong_item'
        when 3 then 'order_error'
        when 4 then 'faulty'
        when 5 then 'other'
        else 'reason_' || returns.return_reason_id
    end as reason,
    returns._deleted as is_deleted,
    returns.known_at,
    returns.partition_on as known_on{{ evolved("opencart", "oc_return", "returns") }}
from {{ raw("opencart", "oc_return") }} as returns
left join items on returns.order_id = items.order_id and returns.product_id = items.product_id
