select
    {{ marketplace("demo_outlet") }} as marketplace,
    sku as product_id,
    name as product_name,
    coalesce(category, 'unknown') as category,
    list_price as list_price_amount,
    coalesce(currency, {{ currency("demo_outlet") }}) as currency,
    true as is_product,
    known_at,
    partition_on as known_on
from {{ source("demo_outlet", "products") }}
