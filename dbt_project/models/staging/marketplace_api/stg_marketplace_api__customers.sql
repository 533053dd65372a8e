-- A customer is known from orders alone, and stays when one of them is removed.
select
    {{ marketplace("marketplace_api") }} as marketplace,
    customer_email as customer_id,
    customer_region as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("marketplace_api", "orders") }}
where customer_email is not null and not _deleted
