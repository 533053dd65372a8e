-- An order's lines that are neither goods nor shipping, added up.
{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[{"columns": ["order_id", "marketplace"], "unique": true}],
) }}

with adjustments as (
    select *
    from ({{ union_sources("adjustments") }}) as told
    where {{ where_touched("contents", "told") }}
)

select
    marketplace,
    order_id,
    coalesce(sum(adjustment_amount) filter (where kind = 'tax'), 0) as tax_amount,
    coalesce(sum(adjustment_amount) filter (where kind = 'discount'), 0) as discount_amount,
    coalesce(sum(adjustment_amount) filter (where kind = 'other'), 0) as other_amount
from ({{ newest("adjustments", ["marketplace", "order_id", "adjustment_id"]) }}) as newest
where is_deleted is not true
group by marketplace, order_id
