-- The segment of a month is known when the month is over: it holds from the next one on. The newest month is under way.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    pre_hook="{{ forget_changed_segments() }}",
    indexes=[{"columns": ["customer_id", "valid_from"], "unique": true}, {"columns": ["valid_from"]}],
    post_hook="{{ one_current(['customer_id']) }}",
) }}

with changes as (
    {{ segment_changes() }}
)

select
    customer_id,
    segment,
    valid_from,
    lead(valid_from) over (partition by customer_id order by valid_from) as valid_to,
    lead(valid_from) over (partition by customer_id order by valid_from) is null as is_current
from changes
{% if is_incremental() -%}
    where
        customer_id in (select customer_id from pg_temp.differing)
        and not exists (
            select 1
            from {{ this }} as there
            where there.customer_id = changes.customer_id and there.valid_from = changes.valid_from
        )
{%- else -%}
    -- A night compares the rows of the newest months: they are then on pages of their own, not one on each page.
    order by valid_from
{%- endif %}
