select
    {{ marketplace("demo_outlet") }} as marketplace,
    customer_email as customer_id,
    customer_region as region,
    known_at,
    partition_on as known_on
from {{ source("demo_outlet", "orders") }}
where customer_email is not null
