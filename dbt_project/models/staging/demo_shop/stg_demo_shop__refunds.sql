-- What came back, and the credit note that the shop wrote for it some days later, which tells the amount: two versions
-- of one refund.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with returns as (
    select *
    from {{ raw("demo_shop", "oc_return") }} as oc_return
),

goods as (
    {{ newest("returns", ["return_id"], "partition_on") }}
),

credits as (
    select *
    from {{ raw("demo_shop", "oc_customer_transaction") }} as oc_customer_transaction
),

items as (
    select
        order_id,
        product_id,
        min(order_product_id) as order_product_id
    from {{ raw("demo_shop", "oc_order_product") }} as oc_order_product
    group by order_id, product_id
),

versions as (
    select
        return_id,
        null::integer as customer_transaction_id,
        null::numeric as amount,
        'requested' as status,
        {{ utc_day("date_added") }} as refunded_on,
        _deleted as is_deleted,
        known_at,
        partition_on
    from returns
    union all
    select
        return_id,
        customer_transaction_id,
        amount,
        'refunded' as status,
        {{ utc_day("date_added") }} as refunded_on,
        _deleted as is_deleted,
        known_at,
        partition_on
    from credits
)

select distinct on (versions.return_id, versions.partition_on)
    {{ marketplace("demo_shop") }} as marketplace,
    versions.return_id::text as refund_id,
    goods.order_id::text as order_id,
    items.order_product_id as order_item_id,
    goods.product_id::text as product_id,
    'return' as kind,
    versions.status,
    versions.refunded_on,
    goods.quantity,
    versions.amount as refund_amount,
    {{ currency("demo_shop") }} as currency,
    case goods.return_reason_id
        when 1 then 'dead_on_arrival'
        when 2 then 'wrong_item'
        when 3 then 'changed_mind'
        when 4 then 'arrived_too_late'
    end as reason,
    versions.is_deleted,
    versions.known_at,
    versions.partition_on as known_on
from versions
inner join goods on versions.return_id = goods.return_id
left join items on goods.order_id = items.order_id and goods.product_id = items.product_id
order by
    versions.return_id asc,
    versions.partition_on asc,
    versions.known_at desc,
    versions.customer_transaction_id desc nulls last
