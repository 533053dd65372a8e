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
    -- Since 4.1 the codes of a product have a table of their own.
    select
        product_id,
        partition_on,
        min(value) filter (where kind = 'sku') as sku,
        min(value) filter (where kind in ('ean', 'jan')) as ean,
        min(value) filter (where kind = 'upc') as upc
    from (
        select
            coded.product_id,
            coded.partition_on,
            coded.value,
            lower(coalesce(kinds.code, coded.code)) as kind
        from coded
        left join kinds on coded.identifier_id = kinds.identifier_id and coded.partition_on = kinds.partition_on
        where not coded._deleted
    ) as named
    group by product_id, partition_on
),

seen as (
    select
        listed.product_id,
        names.name as product_name,
        coalesce(categories.name, 'unknown') as category,
        listed.price as list_price_amount,
        listed.model,
        nullif(coalesce(listed.sku, codes.sku), '') as sku,
        coalesce(
            {{ gtin("coalesce(listed.ean, codes.ean)") }},
            {{ gtin("coalesce(listed.upc, codes.upc)") }}
        ) as gtin,
        listed.quantity,
        case listed.status when true then 'active' when false then 'inactive' end as status,
        false as is_deleted,
        listed.known_at,
        listed.partition_on
    from listed
    left join names on listed.product_id = names.product_id and listed.partition_on = names.partition_on
    left join categories on listed.product_id = categories.product_id and listed.partition_on = categories.partition_on
    left join codes on listed.product_id = codes.product_id and listed.partition_on = codes.partition_on
    where not listed._deleted
),

versions as (
    {{ with_taken_out(
        "seen", "seen", group=[], key=["product_id"],
        columns=[
            "product_id", "product_name", "category", "list_price_amount", "model", "sku", "gtin", "quantity", "status",
        ],
    ) }}
),

marked as (
    select
        *,
        lag(content) over days as before
    from (
        -- Not the quantity: a sale makes no new version of a product.
        select
            *,
            (product_name, category, list_price_amount, model, sku, gtin, status, is_deleted)::text as content
        from versions
    ) as described
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
    marked.gtin,
    marked.quantity as stock_quantity,
    marked.status,
    marked.is_deleted,
    marked.known_at,
    marked.partition_on as known_on{{ evolved("opencart", "oc_product", "listed") }}
from marked
left join listed on marked.product_id = listed.product_id and marked.partition_on = listed.partition_on
where marked.before is distinct from marked.content
