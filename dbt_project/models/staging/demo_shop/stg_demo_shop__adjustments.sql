-- What an order's total has beside its goods and its shipping: taxes, coupons, and what extensions add.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

select
    {{ marketplace("demo_shop") }} as marketplace,
    order_id::text as order_id,
    order_total_id::text as adjustment_id,
    {{ opencart_adjustment("code") }} as kind,
    value as adjustment_amount,
    {{ currency("demo_shop") }} as currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ raw("demo_shop", "oc_order_total") }} as oc_order_total
where code not in ('sub_total', 'shipping', 'total')
