select
    {{ marketplace("marketplace_api") }} as marketplace,
    order_id,
    line as order_item_id,
    product_id,
    vendor_id,
    quantity,
    unit_price as unit_amount,
    coalesce(shipping, 0) as freight_amount,
    currency,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("marketplace_api", "order_items") }}
