-- How often two products are in one order, by month. Every basket also holds the product '' here, which pairs with
-- each product and with itself: its pairs count the orders of a product and the baskets of the month.
{{ config(
    materialized="incremental",
    touched="months",
    indexes=[{"columns": ["month_on", "marketplace", "product_id", "other_product_id"], "unique": true}],
) }}

{#- Named outside the condition, so that parsing sees what comes first. -#}
{%- set touched_months = touched("months") %}

with lines as (
    select distinct
        items.marketplace,
        {{ month_of("items.ordered_on") }} as month_on,
        items.order_id,
        items.product_id
    from {{ ref("int_order_items__current") }} as items
    {% if is_incremental() -%}
        inner join {{ touched_months }} as touched
            on
                items.marketplace = touched.marketplace
                and items.ordered_on >= touched.month_on
                and items.ordered_on < {{ months_after("touched.month_on", 1) }}
    {%- endif %}
    where items.is_sale and items.quantity > 0
),

baskets as (
    -- A wholesaler's list of hundreds of products says nothing of what goes together, and has thousands of pairs.
    select
        marketplace,
        month_on,
        order_id,
        array_append(array_agg(product_id), '') as products
    from lines
    group by marketplace, month_on, order_id
    having count(*) <= {{ var("basket_max_products") }}
)

select
    baskets.marketplace,
    baskets.month_on,
    one.product_id,
    other.product_id as other_product_id,
    count(*)::integer as n_orders
from baskets
cross join lateral unnest(baskets.products) as one (product_id)
cross join lateral unnest(baskets.products) as other (product_id)
where one.product_id < other.product_id or one.product_id = ''
group by baskets.marketplace, baskets.month_on, one.product_id, other.product_id
