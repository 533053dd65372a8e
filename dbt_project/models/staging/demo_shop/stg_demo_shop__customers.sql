-- Known by their orders: the shop's own customer table is not read. They stay when an order is removed.
select
    {{ marketplace("demo_shop") }} as marketplace,
    email as customer_id,
    shipping_zone as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("demo_shop", "oc_order") }}
where order_status_id <> 0 and email is not null and _deleted is not true
