-- Apriori's measures (Agrawal, Srikant 1994): of N baskets, support = n(A and B) / N, confidence = n(A and B) / n(A),
-- lift = confidence / (n(B) / N).
{{ config(
    indexes=[{"columns": ["product_id", "marketplace", "other_product_id"], "unique": true}],
    pre_hook="{{ join_by_hash() }}",
) }}

with newest as (
    select
        marketplace,
        max(month_on) as to_month
    from {{ ref("int_sales__basket_months") }}
    group by marketplace
),

counts as (
    select
        months.marketplace,
        months.product_id,
        months.other_product_id,
        sum(months.n_orders)::integer as n_orders
    from {{ ref("int_sales__basket_months") }} as months
    inner join newest on months.marketplace = newest.marketplace
    where months.month_on > {{ months_after("newest.to_month", "-" ~ var("basket_months")) }}
    group by months.marketplace, months.product_id, months.other_product_id
    having sum(months.n_orders) >= 5 or months.product_id = ''
),

goods as (
    -- Of '' with each product: the product's orders. Postage and fees go with everything.
    select
        counts.marketplace,
        counts.other_product_id as product_id,
        counts.n_orders
    from counts
    left join {{ ref("dim_product") }} as products
        on counts.marketplace = products.marketplace and counts.other_product_id = products.product_id
    where counts.product_id = '' and counts.other_product_id <> '' and products.is_product is not false
),

baskets as (
    select
        marketplace,
        n_orders
    from counts
    where product_id = '' and other_product_id = ''
),

pairs as (
    select
        marketplace,
        product_id,
        other_product_id,
        n_orders
    from counts
    where product_id <> ''
    union all
    select
        marketplace,
        other_product_id as product_id,
        product_id as other_product_id,
        n_orders
    from counts
    where product_id <> ''
)

select
    pairs.marketplace,
    pairs.product_id,
    pairs.other_product_id,
    pairs.n_orders,
    ones.n_orders as n_product_orders,
    others.n_orders as n_other_orders,
    baskets.n_orders as n_baskets,
    {{ share("pairs.n_orders", "baskets.n_orders") }} as support,
    {{ share("pairs.n_orders", "ones.n_orders") }} as confidence,
    {{ share("pairs.n_orders::numeric * baskets.n_orders", "ones.n_orders::numeric * others.n_orders") }} as lift
from pairs
inner join goods as ones on pairs.marketplace = ones.marketplace and pairs.product_id = ones.product_id
inner join goods as others on pairs.marketplace = others.marketplace and pairs.other_product_id = others.product_id
inner join baskets on pairs.marketplace = baskets.marketplace
