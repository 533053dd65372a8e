-- Items with their share of the order's freight: the cents that rounding leaves over go to the first item, so
-- that an order's items carry exactly what the order was charged.
with items as (
    select * from {{ source("demo_shop", "oc_order_product") }}
),

abandoned as (
    select order_id
    from {{ source("demo_shop", "oc_order") }}
    where order_status_id = 0
),

freight as (
    select
        order_id,
        sum(value) as freight_amount
    from ({{ newest(source("demo_shop", "oc_order_total"), ["order_total_id"], "partition_on") }}) as newest
    where code = 'shipping' and _deleted is not true
    group by order_id
),

vendors as (
    -- The vendor of a product at the time; before its first version, the first one known.
    select
        product_id,
        vendor_id,
        case when lag(partition_on) over versions is null then '-infinity' else partition_on end as valid_from,
        coalesce(lead(partition_on) over versions, 'infinity') as valid_until
    from {{ source("demo_shop", "oc_product") }}
    window versions as (partition by product_id order by partition_on)
),

shares as (
    select
        items.*,
        coalesce(freight.freight_amount, 0) as order_freight_amount,
        round(
            coalesce(freight.freight_amount, 0) * items.quantity * items.price
            / nullif(sum(items.quantity * items.price) over same_order, 0),
            2
        ) as share,
        row_number() over (same_order order by items.order_product_id) as position
    from items
    left join freight on items.order_id = freight.order_id
    left join abandoned on items.order_id = abandoned.order_id
    where abandoned.order_id is null
    window same_order as (partition by items.order_id, items.partition_on)
),

allocations as (
    select
        *,
        coalesce(sum(share) over (partition by order_id, partition_on), 0) as allocated
    from shares
)

select
    {{ marketplace("demo_shop") }} as marketplace,
    shares.order_id::text as order_id,
    shares.order_product_id as order_item_id,
    shares.product_id::text as product_id,
    vendors.vendor_id::text as vendor_id,
    shares.quantity,
    shares.price as unit_amount,
    (
        coalesce(shares.share, 0)
        + case when shares.position = 1 then shares.order_freight_amount - shares.allocated else 0 end
    )::numeric(18, 4) as freight_amount,
    {{ currency("demo_shop") }} as currency,
    shares._deleted as is_deleted,
    shares.known_at,
    shares.partition_on as known_on{{ evolved("demo_shop", "oc_order_product", "shares") }}
from allocations as shares
left join vendors
    on
        shares.product_id = vendors.product_id
        and shares.partition_on >= vendors.valid_from
        and shares.partition_on < vendors.valid_until
