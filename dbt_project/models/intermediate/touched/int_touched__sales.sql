{{ config(indexes=[{"columns": ["order_id", "marketplace"]}]) }}

with touched as (
    select * from {{ ref("int_touched__orders") }}
),

contents as (
    select * from {{ ref("int_touched__contents") }}
),

told as (
    select distinct
        order_id,
        marketplace
    from contents
    where is_told
),

sales as (
    {{ digests_of_orders("sale", "told", {
        "int_orders__current": ref("int_orders__current"),
        "int_order_items__current": ref("int_order_items__current"),
    }) }}
),

others as (
    select distinct
        contents.marketplace,
        contents.order_id
    from contents
    left join sales on contents.marketplace = sales.marketplace and contents.order_id = sales.order_id
    where contents.is_other_order or (contents.is_told and contents.sale_before is distinct from sales.digest)
)

select
    touched.marketplace,
    touched.order_id,
    touched.ordered_on_before,
    touched.customer_id_before,
    touched.days_back,
    others.order_id is not null as is_other_sale
from touched
left join others on touched.marketplace = others.marketplace and touched.order_id = others.order_id
