-- Vendors on the days on which their name changed: manufacturers, or the vendors of an extension (opencart.yaml).
with versions as (
    select
        *,
        lag(name) over days as name_before,
        row_number() over days as n_th
    from {{ source("opencart", "oc_vendor") }}
    where not _deleted
    window days as (partition by vendor_id order by partition_on)
)

select
    {{ marketplace("opencart") }} as marketplace,
    vendor_id::text as vendor_id,
    name as vendor_name,
    null::text as region,
    false as is_deleted,
    known_at,
    partition_on as known_on
from versions
where n_th = 1 or name is distinct from name_before
