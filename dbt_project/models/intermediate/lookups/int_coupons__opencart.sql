{{ config(
    materialized="incremental",
    incremental_strategy="tracked",
    full_refresh=false,
    on_schema_change="sync_all_columns",
    tracks={"source": "'opencart'", "thing": "'coupons'", "key": "coupon_id"},
) }}

select distinct on (coupon_id)
    coupon_id,
    nullif(name, '') as name,
    code
from {{ source("opencart", "oc_coupon") }}
order by coupon_id asc, partition_on desc
