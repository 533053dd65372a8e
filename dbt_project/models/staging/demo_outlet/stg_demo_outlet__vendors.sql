select
    {{ marketplace("demo_outlet") }} as marketplace,
    vendor_code as vendor_id,
    name as vendor_name,
    region,
    known_at,
    partition_on as known_on
from {{ source("demo_outlet", "vendors") }}
