-- Products on the days on which what is shown of them changed: the catalogue is read whole each day. A product that
-- the next day's catalogue lacks was deleted.
with listed as (
    select *
    from {{ source("opencart", "oc_product") }}
),

placed as (
    select *
    from {{ source("opencart", "oc_product_to_category") }}
),

coded as (
    select *
    from {{ source("opencart", "oc_product_code") }}
),

kinds as (
    select *
    from {{ source("opencart", "oc_identifier") }}
),

names as (
    {{ opencart_names("oc_product_description", "product_id") }}
),

category_names as (
    {{ opencart_names("oc_category_description", "category_id") }}
),

categories as (
    select distinct on (placed.product_id, placed.partition_on)
        placed.product_id,
        placed.partition_on,
        category_names.name
    from placed
    inner join category_names
        on placed.category_id = category_names.category_id and placed.partition_on = category_names.partition_on
    order by placed.product_id, placed.partition_on, placed.category_id
),

codes as (
    -- Since 4.1 the codes of a product, the SKU among them, have a table of their own.
    select
        coded.product_id,
        coded.partition_on,
        min(coded.value) as value
    from coded
    left join kinds on coded.identifier_id = kinds.identifier_id and coded.partition_on = kinds.partition_on
    where lower(coalesce(kinds.code, coded.code)) = 'sku'
    group by coded.product_id, coded.partition_on
),

seen as (
    select
        listed.product_id,
        names.name as product_name,
        coalesce(categories.name, 'unknown') as category,
        listed.price as list_price_amount,
        listed.model,
        coalesce(listed.sku, codes.value) as sku,
        listed.known_at,
        listed.partition_on
    from listed
    left join names on listed.product_id = names.product_id and listed.partition_on = names.partition_on
    left join categories on listed.product_id = categories.product_id and listed.partition_on = categories.partition_on
    left join codes on listed.product_id = codes.product_id and listed.partition_on = codes.partition_on
    where not listed._deleted
),

catalogue_days as (
    select
        partition_on,
        lead(partition_on) over days as next_on,
        lead(known_at) over days as next_known_at
    from (
        select
            partition_on,
            max(known_at) as known_at
        from seen
        group by partition_on
    ) as found
    window days as (order by partition_on)
),

versions as (
    select
        seen.*,
        false as is_deleted
    from seen
    union all
    select
        seen.product_id,
        seen.product_name,
        seen.category,
        seen.list_price_amount,
        seen.model,
        seen.sku,
        catalogue_days.next_known_at as known_at,
        catalogue_days.next_on as partition_on,
        true as is_deleted
    from seen
    inner join catalogue_days on seen.partition_on = catalogue_days.partition_on
    left join seen as still
        on seen.product_id = still.product_id and catalogue_days.next_on = still.partition_on
    where catalogue_days.next_on is not null and still.product_id is null
),

marked as (
    select
        *,
        lag((product_name, category, list_price_amount, model, sku, is_deleted)::text) over days as before,
        (product_name, category, list_price_amount, model, sku, is_deleted)::text as content
    from versions
    window days as (partition by product_id order by partition_on)
)

select
    {{ marketplace("opencart") }} as marketplace,
    marked.product_id::text as product_id,
    marked.product_name,
    marked.category,
    marked.list_price_amount,
    {{ currency("opencart") }} as currency,
    true as is_product,
    marked.model,
    marked.sku,
    marked.is_deleted,
    marked.known_at,
    marked.partition_on as known_on{{ evolved("opencart", "oc_product", "listed") }}
from marked
left join listed on marked.product_id = listed.product_id and marked.partition_on = listed.partition_on
where marked.before is distinct from marked.content
