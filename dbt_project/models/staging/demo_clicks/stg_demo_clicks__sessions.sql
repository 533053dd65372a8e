-- The sessions of the demo shop's click stream.
select
    {{ conformed_columns("sessions").keys() | join(",\n    ") }}
from {{ source("demo_clicks", "sessions") }}
