select distinct on (product_id, partition_on)
    {{ marketplace("demo_shop") }} as marketplace,
    product_id::text as product_id,
    quantity as stock_quantity,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("demo_shop", "oc_product_stock_log") }}
order by product_id asc, partition_on asc, known_at desc, product_stock_log_id desc
