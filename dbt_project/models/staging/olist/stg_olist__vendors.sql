-- Sellers are anonymous: no name.
select
    {{ marketplace("olist") }} as marketplace,
    seller_id as vendor_id,
    null as vendor_name,
    seller_state as region,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("olist", "sellers") }}
from {{ source("olist", "sellers") }}
