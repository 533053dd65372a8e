select
    {{ marketplace("demo_shop") }} as marketplace,
    vendor_id::text as vendor_id,
    {{ html_unescape("name") }} as vendor_name,
    zone as region,
    known_at,
    partition_on as known_on
from {{ source("demo_shop", "oc_vendor") }}
