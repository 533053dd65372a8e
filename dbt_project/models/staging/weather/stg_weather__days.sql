select
    place,
    weather_on,
    is_estimated,
    temperature_mean,
    temperature_max,
    precipitation,
    sunshine_seconds,
    _deleted as is_deleted,
    known_at,
    partition_on as known_on
from {{ source("weather", "days") }}
