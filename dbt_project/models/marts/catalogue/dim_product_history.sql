{{ config(
    indexes=[{"columns": ["product_id", "marketplace", "valid_from"], "unique": true}],
    post_hook="{{ one_current(['product_id', 'marketplace']) }}",
) }}

with versions as (
    select
        marketplace,
        product_id,
        list_price_amount,
        currency,
        coalesce(category, 'unknown') as category,
        status,
        coalesce(is_deleted, false) as is_deleted,
        known_at,
        known_on
    from {{ ref("int_products__versions") }}
),

history as (
    {{ history_of(
        "versions",
        ["marketplace", "product_id"],
        ["list_price_amount", "currency", "category", "status", "is_deleted"]
    ) }}
)

select
    history.marketplace,
    history.product_id,
    history.valid_from,
    history.valid_to,
    history.is_current,
    history.n_version,
    history.list_price_amount,
    history.currency,
    {{ reporting("history.list_price_amount", "rates.rate") }} as list_price_reporting_amount,
    {{ reporting_currency() }} as reporting_currency,
    history.category,
    history.status,
    history.is_deleted
from history
left join {{ ref("int_currency__rates") }} as rates
    on history.currency = rates.currency and history.valid_from = rates.rate_on
