-- An order comes with all of its items whenever it changes: one that is not among them any more was taken out.
with items as (
    select *
    from {{ source("marketplace_api", "order_items") }}
),

order_days as (
    select
        order_id,
        partition_on,
        max(known_at) as known_at
    from (
        select
            order_id,
            partition_on,
            known_at
        from {{ source("marketplace_api", "orders") }}
        union all
        select
            order_id,
            partition_on,
            known_at
        from items
    ) as seen
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
        line,
        product_id,
        vendor_id,
        quantity,
        unit_price,
        shipping,
        currency,
        _deleted as is_deleted,
        known_at,
        partition_on
    from items
    union all
    select
        items.order_id,
        items.line,
        items.product_id,
        items.vendor_id,
        items.quantity,
        items.unit_price,
        items.shipping,
        items.currency,
        true as is_deleted,
        next_days.next_known_at as known_at,
        next_days.next_on as partition_on
    from items
    inner join next_days on items.order_id = next_days.order_id and items.partition_on = next_days.partition_on
    left join items as still
        on
            items.order_id = still.order_id
            and items.line = still.line
            and next_days.next_on = still.partition_on
    where not items._deleted and next_days.next_on is not null and still.order_id is null
)

select
    {{ marketplace("marketplace_api") }} as marketplace,
    order_id,
    line as order_item_id,
    product_id,
    vendor_id,
    quantity,
    unit_price as unit_amount,
    coalesce(shipping, 0) as freight_amount,
    currency,
    is_deleted,
    known_at,
    partition_on as known_on
from versions
