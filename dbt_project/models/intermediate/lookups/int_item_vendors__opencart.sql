{{ config(
    materialized="incremental",
    incremental_strategy="tracked",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    tracks={"source": "'opencart'", "thing": "'item_vendors'", "key": "product_id"},
) }}

{{ opencart_vendors(source("opencart", "oc_vendor_product")) }}
