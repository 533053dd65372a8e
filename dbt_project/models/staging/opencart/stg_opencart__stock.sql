-- The catalogue is read whole each day, so every day tells the stock of every product.
select
    {{ marketplace("opencart") }} as marketplace,
    product_id::text as product_id,
    quantity as stock_quantity,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("opencart", "oc_product") }}
where quantity is not null
