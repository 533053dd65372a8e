-- Every version of every item, with the day of its order; an item whose order is unknown keeps the day on which
-- it became known, so that it is counted and seen.
{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[{"columns": ["order_id", "order_item_id", "marketplace", "known_on"], "unique": true}],
) }}

with items as (
    select *
    from ({{ union_sources("order_items") }}) as told
    where {{ where_touched("contents", "told") }}
),

orders as (
    select
        marketplace,
        order_id,
        ordered_on
    from {{ ref("int_orders__current") }}
    where {{ where_touched("contents") }}
    union all
    select
        marketplace,
        order_id,
        ordered_on
    from {{ ref("int_orders__deleted") }}
    where {{ where_touched("contents") }}
)

select
    items.*,
    items.quantity * items.unit_amount as item_amount,
    coalesce(orders.ordered_on, items.known_on) as ordered_on
from items
left join orders on items.marketplace = orders.marketplace and items.order_id = orders.order_id
