{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[
        {"columns": ["order_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
    ],
) }}

with told as (
    select
        *,
        hash_record_extended(row(customer_id, ordered_at, currency, {{ is_sale("status") }}), 0) as sale
    from {{ ref("int_orders__versions") }}
    where {{ where_touched("orders") }}
),

compared as (
    select
        *,
        lead(sale) over older as sale_before
    from told
    window older as (partition by marketplace, order_id order by known_at desc, known_on desc)
),

versions as (
    select
        {{ conformed_columns("orders").keys() | join(",\n        ") }},
        max(known_at) filter (where sale is distinct from sale_before) over (
            partition by marketplace, order_id
        ) as sale_known_at
    from compared
)

select
    *,
    {{ utc_day("ordered_at") }} as ordered_on
from ({{ newest("versions", ["marketplace", "order_id"]) }}) as newest
where is_deleted is not true
