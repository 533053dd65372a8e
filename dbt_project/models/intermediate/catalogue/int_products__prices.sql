-- The price alone, without the ranges that a new category or status begins.
{{ config(indexes=[{"columns": ["product_id", "marketplace", "valid_from"], "unique": true}]) }}

with versions as (
    select
        marketplace,
        product_id,
        list_price_amount,
        currency,
        coalesce(is_deleted, false) as is_deleted,
        known_at,
        known_on
    from {{ ref("int_products__versions") }}
)

{{ history_of("versions", ["marketplace", "product_id"], ["list_price_amount", "currency", "is_deleted"]) }}
