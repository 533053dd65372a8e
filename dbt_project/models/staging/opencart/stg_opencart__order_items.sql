-- Items with their share of the order's freight: the cents that rounding leaves over go to the first item, so that
-- an order's items carry exactly what the order was charged. An order's parts come together on each of its days; an
-- item that is not among them any more was taken out by an edit of the order.
with seen as (
    select *
    from {{ source("opencart", "oc_order_product") }}
),

items as (
    select *
    from seen
    where not _deleted
),

confirmed as (
    -- Whoever edits an abandoned checkout makes the shop write a history row with status 0, which is still none.
    select distinct order_id
    from {{ source("opencart", "oc_order_history") }}
    where order_status_id <> 0 and not _deleted
),

abandoned as (
    select orders.order_id
    from ({{ newest(source("opencart", "oc_order"), ["order_id"], "partition_on") }}) as orders
    left join confirmed on orders.order_id = confirmed.order_id
    where orders.order_status_id = 0 and confirmed.order_id is null
),

freight as (
    select
        order_id,
        partition_on,
        sum(value) as freight_amount
    from {{ source("opencart", "oc_order_total") }}
    where code = 'shipping' and not _deleted
    group by order_id, partition_on
),

vendors as (
    -- The vendor of a product at the time; before its first version, the first one known.
    select
        product_id,
        vendor_id,
        case when lag(partition_on) over versions is null then '-infinity' else partition_on end as valid_from,
        coalesce(lead(partition_on) over versions, 'infinity') as valid_until
    from {{ source("opencart", "oc_vendor_product") }}
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
    left join freight on items.order_id = freight.order_id and items.partition_on = freight.partition_on
    left join abandoned on items.order_id = abandoned.order_id
    where abandoned.order_id is null
    window same_order as (partition by items.order_id, items.partition_on)
),

allocations as (
    select
        *,
        coalesce(sum(share) over (partition by order_id, partition_on), 0) as allocated
    from shares
),

order_days as (
    -- Of the order, not of its items: an edit may have left none.
    select
        order_id,
        partition_on,
        max(known_at) as known_at
    from {{ source("opencart", "oc_order") }}
    where not _deleted
    group by order_id, partition_on
),

next_days as (
    select
        order_id,
        partition_on,
        lead(partition_on) over days as next_on,
        lead(known_at) over days as next_known_at
    from order_days
    window days as (partition by order_id order by partition_on)
),

versions as (
    select
        order_id,
        order_product_id,
        product_id,
        quantity,
        price,
        coalesce(share, 0) + case when position = 1 then order_freight_amount - allocated else 0 end as freight_amount,
        false as is_deleted,
        known_at,
        partition_on
    from allocations
    union all
    select
        last_seen.order_id,
        last_seen.order_product_id,
        last_seen.product_id,
        last_seen.quantity,
        last_seen.price,
        0 as freight_amount,
        true as is_deleted,
        next_days.next_known_at as known_at,
        next_days.next_on as partition_on
    from ({{ newest("allocations", ["order_product_id"], "partition_on") }}) as last_seen
    inner join next_days
        on last_seen.order_id = next_days.order_id and last_seen.partition_on = next_days.partition_on
    where next_days.next_on is not null
)

select
    {{ marketplace("opencart") }} as marketplace,
    versions.order_id::text as order_id,
    versions.order_product_id as order_item_id,
    versions.product_id::text as product_id,
    vendors.vendor_id::text as vendor_id,
    versions.quantity,
    versions.price as unit_amount,
    versions.freight_amount::numeric(18, 4) as freight_amount,
    {{ currency("opencart") }} as currency,
    versions.is_deleted,
    versions.known_at,
    versions.partition_on as known_on{{ evolved("opencart", "oc_order_product", "seen") }}
from versions
left join seen on versions.order_product_id = seen.order_product_id and versions.partition_on = seen.partition_on
left join vendors
    on
        versions.product_id = vendors.product_id
        and versions.partition_on >= vendors.valid_from
        and versions.partition_on < vendors.valid_until
