select
    {{ marketplace("demo_outlet") }} as marketplace,
    review_id,
    sku as product_id,
    order_id,
    customer_email as customer_id,
    rating,
    reviewed_at as review_at,
    true as is_approved,
    n_characters,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "reviews") }}
from {{ source("demo_outlet", "reviews") }}
