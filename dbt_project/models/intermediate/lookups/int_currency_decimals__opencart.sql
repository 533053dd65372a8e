{{ config(
    materialized="incremental",
    incremental_strategy="tracked",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    tracks={"source": "'opencart'", "thing": "'currency_decimals'", "key": "code"},
) }}

select distinct on (code)
    code,
    decimal_place
from {{ source("opencart", "oc_currency") }}
order by code asc, partition_on desc, currency_id desc
