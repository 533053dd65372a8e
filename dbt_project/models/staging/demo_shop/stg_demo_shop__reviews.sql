-- The shop does not say for which order a product is reviewed.
select
    {{ marketplace("demo_shop") }} as marketplace,
    review_id::text as review_id,
    product_id::text as product_id,
    null as order_id,
    email as customer_id,
    rating,
    date_added as review_at,
    status = 1 as is_approved,
    n_characters,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_shop", "oc_review") }}
from {{ source("demo_shop", "oc_review") }}
