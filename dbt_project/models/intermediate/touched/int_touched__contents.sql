{{ config(indexes=[{"columns": ["order_id", "marketplace"]}]) }}

with touched as (
    select
        *,
        {{ is_told_of(contents_of_orders()) }} as is_told
    from {{ ref("int_touched__orders") }}
),

taken as (
    {{ digests_of_orders("order", ref("int_touched__order_keys"), {
        "int_orders__current": ref("int_orders__current"),
        "int_orders__deleted": ref("int_orders__deleted"),
    }) }}
),

compared as (
    select
        touched.*,
        touched.is_incomparable or (touched.order_before is distinct from taken.digest) as is_other_order
    from touched
    left join taken on touched.marketplace = taken.marketplace and touched.order_id = taken.order_id
)

select
    compared.marketplace,
    compared.order_id,
    compared.customer_id_before,
    compared.days_back,
    compared.is_told,
    compared.is_other_order,
    compared.sale_before,
    compared.extras_before
from compared
left join {{ ref("int_orders__current") }} as orders
    on compared.marketplace = orders.marketplace and compared.order_id = orders.order_id
where
    compared.is_told
    or compared.is_other_order
    -- Its refunds tell when it was canceled, which is no part of the digest.
    or not {{ is_sale("orders.status") }}
