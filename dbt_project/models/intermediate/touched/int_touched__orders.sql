-- depends_on: {{ ref("int_currency__rates") }}
-- Rows are added until a build is green, then `include.dbt` empties it: what a killed build left half done is touched
-- in the next one too, with the days and customers of before both.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    indexes=[{"columns": ["order_id", "marketplace"]}],
    post_hook="analyze {{ this }}",
) }}

{%- do depend_on_lookups() %}

{%- set of_orders = {
    "marketplace": "text", "order_id": "text", "customer_id": "text", "ordered_on": "date"
} %}
{%- set of_coupons = {"marketplace": "text", "order_id": "text", "customer_id": "text"} %}
{%- set of_items = {"marketplace": "text", "order_id": "text", "ordered_on": "date"} %}

with marketplaces as (
    select distinct marketplace
    from {{ marketplaces_of_sources() }} as known (source, marketplace)
),

-- Read by its indexes; a CTE that is named twice would be copied whole.
orders as not materialized (
    select left_over.*
    from {{ left_by_last_build("int_orders__current", of_orders) }} as left_over
),

items as (
    select left_over.*
    from {{ left_by_last_build("int_order_items__current", of_items) }} as left_over
),

changed as (
    {{ orders_of_work() }}
),

newest as materialized (
    -- One look into the index for each marketplace.
    select
        marketplace,
        (
            select max(orders.ordered_on)
            from orders
            where orders.marketplace = marketplaces.marketplace
        ) as ordered_on
    from marketplaces
),

days as (
    -- By equal days, of which the planner knows how many orders they have: of an unknown range it expects a third.
    select
        newest.marketplace,
        newest.ordered_on - n as ordered_on,
        n as days_back
    from newest
    cross join generate_series(0, {{ max_lookback_days() }} - 1) as n
),

found as (
    select
        marketplace,
        order_id,
        null::integer as days_back,
        bool_or(by_rate) as is_incomparable,
        case when count(*) = count(told_by) then jsonb_agg(told_by order by told_by) end as told_by
    from changed
    group by marketplace, order_id
    union all
    select
        orders.marketplace,
        orders.order_id,
        days.days_back,
        false as is_incomparable,
        null as told_by
    from days
    inner join orders on days.marketplace = orders.marketplace and days.ordered_on = orders.ordered_on
),

touched as (
    -- By the order of the indexes: what is looked up one after the other is then on the same pages.
    select *
    from found
    order by order_id, marketplace
),

touched_keys as (
    select distinct
        order_id,
        marketplace
    from touched
),

contents as (
    select distinct
        order_id,
        marketplace
    from touched
    where {{ is_told_of(contents_of_orders()) }}
),

taken as (
    {{ digests_of_orders("order", "touched_keys") }}
),

sales as (
    {{ digests_of_orders("sale", "contents") }}
),

extras as (
    {{ digests_of_orders("extras", "contents") }}
),

places as (
    select
        touched.marketplace,
        touched.order_id,
        orders.ordered_on as ordered_on_before,
        orders.customer_id as customer_id_before,
        touched.days_back,
        touched.is_incomparable,
        touched.told_by
    from touched
    left join orders on touched.marketplace = orders.marketplace and touched.order_id = orders.order_id
    union all
    -- An item whose order is unknown has a day of its own.
    select
        touched.marketplace,
        touched.order_id,
        items.ordered_on as ordered_on_before,
        null as customer_id_before,
        touched.days_back,
        touched.is_incomparable,
        touched.told_by
    from touched
    inner join items on touched.marketplace = items.marketplace and touched.order_id = items.order_id
    union all
    -- A coupon of an order that is not there yet, or not any more, is somebody's all the same.
    select
        touched.marketplace,
        touched.order_id,
        null as ordered_on_before,
        coupons.customer_id as customer_id_before,
        touched.days_back,
        touched.is_incomparable,
        touched.told_by
    from touched
    inner join {{ left_by_last_build("fact_campaign_touch", of_coupons) }} as coupons
        on touched.marketplace = coupons.marketplace and touched.order_id = coupons.order_id
    where coupons.customer_id is not null
),

before as (
    select
        places.marketplace,
        places.order_id,
        places.ordered_on_before,
        places.customer_id_before,
        places.days_back,
        places.is_incomparable,
        places.told_by,
        taken.digest as order_before,
        sales.digest as sale_before,
        extras.digest as extras_before
    from places
    left join taken on places.marketplace = taken.marketplace and places.order_id = taken.order_id
    left join sales on places.marketplace = sales.marketplace and places.order_id = sales.order_id
    left join extras on places.marketplace = extras.marketplace and places.order_id = extras.order_id
)

select *
from before
except
select told.*
from {{ left_by_last_build("int_touched__orders", {
    "marketplace": "text", "order_id": "text", "ordered_on_before": "date", "customer_id_before": "text",
    "days_back": "integer", "is_incomparable": "boolean", "told_by": "jsonb", "order_before": "numeric",
    "sale_before": "numeric", "extras_before": "numeric",
}) }} as told
