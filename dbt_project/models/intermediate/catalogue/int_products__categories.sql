-- The category alone, so that looking up that of a day does not wade through every price.
{{ config(
    materialized="incremental",
    incremental_strategy="tracked",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    tracks={"source": "marketplace", "thing": "'product_categories'", "key": "product_id"},
    indexes=[{"columns": ["product_id", "marketplace", "valid_from"], "unique": true}],
) }}

with versions as (
    select
        marketplace,
        product_id,
        coalesce(category, 'unknown') as category,
        is_deleted,
        known_at,
        known_on
    from {{ ref("int_products__versions") }}
)

{{ history_of("versions", ["marketplace", "product_id"], ["category"]) }}
