select
    {{ marketplace("olist") }} as marketplace,
    customer_unique_id as customer_id,
    customer_state as region,
    known_at,
    partition_on as known_on
from {{ source("olist", "customers") }}
