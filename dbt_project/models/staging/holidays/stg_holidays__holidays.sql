select
    country,
    region,
    holiday_on,
    holiday_name,
    is_public,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("holidays", "holidays") }}
