select
    {{ marketplace("demo_shop") }} as marketplace,
    vendor_id::text as vendor_id,
    {{ html_unescape("name") }} as vendor_name,
    zone as region,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_shop", "oc_vendor") }}
from {{ source("demo_shop", "oc_vendor") }}
