-- Public holidays of whole countries; raw_holidays.holidays has those of regions and other categories too.
select
    country,
    holiday_on,
    holiday_name as name,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("holidays", "holidays") }}
where region = 'all' and is_public
