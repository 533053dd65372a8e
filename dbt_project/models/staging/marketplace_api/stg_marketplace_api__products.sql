select
    {{ marketplace("marketplace_api") }} as marketplace,
    product_id,
    title as product_name,
    coalesce(category, 'unknown') as category,
    list_price as list_price_amount,
    coalesce(currency, {{ currency("marketplace_api") }}) as currency,
    true as is_product,
    sku,
    {{ gtin("gtin") }} as gtin,
    null::integer as stock_quantity,
    null as status,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("marketplace_api", "products") }}
