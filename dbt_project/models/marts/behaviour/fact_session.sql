{{ config(
    materialized="incremental",
    touched="session_days",
    touches={"visitors": "customer_id"},
    indexes=[
        {"columns": ["session_id", "marketplace"], "unique": true},
        {"columns": ["session_on", "marketplace"]},
    ],
) }}

select *
from ({{ union_sources("sessions") }}) as told
where {{ where_touched("session_days", "told") }}
