select
    {{ marketplace("online_retail") }} as marketplace,
    customer_id,
    min(country) as region,
    max(known_at) as known_at,
    partition_on as known_on
from {{ source("online_retail", "lines") }}
where customer_id is not null
group by customer_id, partition_on
