select
    {{ marketplace("marketplace_api") }} as marketplace,
    vendor_id,
    vendor_name,
    region,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("marketplace_api", "vendors") }}
