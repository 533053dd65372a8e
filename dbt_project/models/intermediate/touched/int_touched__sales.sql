{{ config(indexes=[{"columns": ["order_id", "marketplace"]}]) }}

with touched as (
    select * from {{ ref("int_touched__orders") }}
),

sales as (
    {{ digests_of_orders("sale", "touched", {
        "int_orders__current": ref("int_orders__current"),
        "int_order_items__current": ref("int_order_items__current"),
    }) }}
)

select
    touched.marketplace,
    touched.order_id,
    touched.ordered_on_before,
    touched.customer_id_before,
    touched.days_back,
    touched.is_incomparable or (touched.sale_before is distinct from sales.digest) as is_other_sale
from touched
left join sales on touched.marketplace = sales.marketplace and touched.order_id = sales.order_id
