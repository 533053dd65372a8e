{{ config(
    indexes=[{"columns": ["vendor_id", "marketplace", "valid_from"], "unique": true}],
    post_hook="{{ one_current(['vendor_id', 'marketplace']) }}",
) }}

with told as (
    {{ union_sources("vendors") }}
),

versions as (
    select
        marketplace,
        vendor_id,
        vendor_name,
        region,
        coalesce(is_deleted, false) as is_deleted,
        known_at,
        known_on
    from told
),

history as (
    {{ history_of("versions", ["marketplace", "vendor_id"], ["vendor_name", "region", "is_deleted"]) }}
)

select
    marketplace,
    vendor_id,
    valid_from,
    valid_to,
    is_current,
    n_version,
    vendor_name,
    region,
    is_deleted
from history
