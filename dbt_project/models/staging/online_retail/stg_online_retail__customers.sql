select
    {{ marketplace("online_retail") }} as marketplace,
    customer_id,
    min(country) as region,
    false as is_deleted,
    max(known_at) as known_at,
    partition_on as known_on
from {{ source("online_retail", "lines") }}
where customer_id is not null and _deleted is not true
group by customer_id, partition_on
