select
    {{ marketplace("demo_shop") }} as marketplace,
    product_id::text as product_id,
    {{ html_unescape("name") }} as product_name,
    coalesce({{ html_unescape("category") }}, 'unknown') as category,
    price as list_price_amount,
    {{ currency("demo_shop") }} as currency,
    true as is_product,
    nullif(sku, '') as sku,
    {{ gtin("ean") }} as gtin,
    quantity as stock_quantity,
    case status when 1 then 'active' when 0 then 'inactive' end as status,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_shop", "oc_product") }}
from {{ source("demo_shop", "oc_product") }}
