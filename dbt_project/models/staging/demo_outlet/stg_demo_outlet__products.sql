select
    {{ marketplace("demo_outlet") }} as marketplace,
    sku as product_id,
    name as product_name,
    coalesce(category, 'unknown') as category,
    list_price as list_price_amount,
    coalesce(currency, {{ currency("demo_outlet") }}) as currency,
    true as is_product,
    sku,
    {{ gtin("gtin") }} as gtin,
    null::integer as stock_quantity,
    null as status,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "products") }}
from {{ source("demo_outlet", "products") }}
