{{ config(indexes=[{"columns": ["vendor_id", "marketplace"], "unique": true}]) }}

with sold as (
    select
        marketplace,
        vendor_id,
        min(ordered_on) as first_sold_on,
        max(ordered_on) as last_sold_on
    from {{ ref("int_sales__product_days") }}
    where vendor_id <> ''
    group by marketplace, vendor_id
),

vendors as (
    select * from {{ ref("int_vendors__current") }}
)

-- A vendor that sold is here whether the vendor list tells of them or not, so that no join loses a sale: one that was
-- removed from the list keeps what it said. A vendor that was removed and never sold is not here.
select
    marketplace,
    vendor_id,
    vendors.vendor_name,
    vendors.region,
    sold.first_sold_on,
    sold.last_sold_on,
    coalesce(vendors.is_deleted, false) as is_deleted
from vendors
full join sold using (marketplace, vendor_id)
where vendors.is_deleted is not true or sold.vendor_id is not null
