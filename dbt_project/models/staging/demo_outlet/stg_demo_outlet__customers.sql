-- A customer is known by orders, and stays when one of them is removed.
select
    {{ marketplace("demo_outlet") }} as marketplace,
    customer_email as customer_id,
    customer_region as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("demo_outlet", "orders") }}
where customer_email is not null and _deleted is not true
