{{ config(
    materialized="incremental",
    incremental_strategy="tracked",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    tracks={"source": "'demo_shop'", "thing": "'item_vendors'", "key": "product_id"},
) }}

{{ opencart_vendors(source("demo_shop", "oc_product")) }}
