select
    {{ marketplace("demo_outlet") }} as marketplace,
    vendor_code as vendor_id,
    name as vendor_name,
    region,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on{{ evolved("demo_outlet", "vendors") }}
from {{ source("demo_outlet", "vendors") }}
