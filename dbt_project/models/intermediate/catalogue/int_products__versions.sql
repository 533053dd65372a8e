{{ config(
    materialized="incremental",
    incremental_strategy="tracked",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    tracks={"source": "marketplace", "thing": "'product_versions'", "key": "product_id"},
    indexes=[{"columns": ["product_id", "marketplace", "known_on"], "unique": true}],
) }}

{{ union_sources("products") }}
