-- Sessions of the clothing shop.
select
    {{ conformed_columns("sessions").keys() | join(",\n    ") }}
from {{ source("eshop_clicks", "sessions") }}
