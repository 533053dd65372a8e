-- What an order's total has beside its goods and its shipping: taxes, coupons, and what extensions add. An order's
-- parts come together on each of its days; a line that is not among them any more was taken out by an edit.
{{ config(materialized="incremental", touched="orders", indexes=[{"columns": ["order_id"]}]) }}

with seen as (
    select
        *,
        false as is_deleted
    from {{ raw("opencart", "oc_order_total") }} as oc_order_total
    where not _deleted and code not in ('sub_total', 'shipping', 'total')
),

order_days as (
    select *
    from {{ raw("opencart", "oc_order") }} as oc_order
    where not _deleted
),

versions as (
    {{ with_taken_out(
        "seen", "order_days", group=["order_id"], key=["order_id", "order_total_id"],
        columns=["order_id", "order_total_id", "code", "value"],
    ) }}
)

select
    {{ marketplace("opencart") }} as marketplace,
    order_id::text as order_id,
    order_total_id::text as adjustment_id,
    {{ opencart_adjustment("code") }} as kind,
    value as adjustment_amount,
    {{ currency("opencart") }} as currency,
    is_deleted,
    known_at,
    partition_on as known_on
from versions
