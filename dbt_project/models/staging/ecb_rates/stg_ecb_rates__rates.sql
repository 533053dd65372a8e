-- Of the days that tell a rate, the first: on days without rates the newest are told again.
select distinct on (currency, rate_on)
    currency,
    rate_on,
    1 / units_per_eur::numeric as eur_per_unit,
    false as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("ecb_rates", "rates") }}
where not _deleted
order by currency asc, rate_on asc, partition_on asc
