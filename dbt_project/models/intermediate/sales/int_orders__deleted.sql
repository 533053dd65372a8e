{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["order_id", "marketplace"], "unique": true}],
) }}

with versions as (
    select *
    from {{ ref("int_orders__versions") }}
    where {{ where_touched("orders") }}
)

select
    marketplace,
    order_id,
    {{ utc_day("ordered_at") }} as ordered_on
from ({{ newest("versions", ["marketplace", "order_id"]) }}) as newest
where is_deleted
