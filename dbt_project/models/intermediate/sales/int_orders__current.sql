{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
        {"columns": ["customer_id", "ordered_on"]},
    ],
) }}

with versions as (
    select *
    from {{ ref("int_orders__versions") }}
    where {{ where_touched("orders") }}
)

select
    *,
    {{ utc_day("ordered_at") }} as ordered_on
from ({{ newest("versions", ["marketplace", "order_id"]) }}) as newest
where is_deleted is not true
