{{ config(
    materialized="incremental",
    touched="products",
    indexes=[{"columns": ["product_id", "changed_on", "marketplace"], "unique": true}],
) }}

with versions as (
    -- A version with an older known_at than one that arrived before it corrects nothing that is seen today.
    select
        *,
        max(known_at) over (partition by marketplace, product_id order by known_on) as newest_known_at
    from {{ ref("int_products__versions") }}
    where
        is_deleted is not true
        and list_price_amount is not null
        and {{ where_touched("products") }}
),

priced as (
    select
        *,
        lag(list_price_amount) over told as old_list_price_amount,
        lag(currency) over told as old_currency
    from versions
    where known_at = newest_known_at
    window told as (partition by marketplace, product_id order by known_on)
)

select
    priced.product_id,
    priced.marketplace,
    priced.known_on as changed_on,
    priced.old_list_price_amount,
    priced.list_price_amount as new_list_price_amount,
    priced.currency,
    (priced.list_price_amount / nullif(priced.old_list_price_amount, 0) - 1)::double precision as change_share,
    {{ reporting("priced.old_list_price_amount", "rates.rate") }} as old_list_price_reporting_amount,
    {{ reporting("priced.list_price_amount", "rates.rate") }} as new_list_price_reporting_amount,
    {{ reporting_currency() }} as reporting_currency,
    priced.known_at
from priced
left join {{ ref("int_currency__rates") }} as rates
    on priced.currency = rates.currency and priced.known_on = rates.rate_on
-- A price in another currency is another price list, not a change.
where priced.old_currency = priced.currency and priced.old_list_price_amount <> priced.list_price_amount
