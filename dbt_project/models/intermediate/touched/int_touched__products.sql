-- depends_on: {{ ref("int_currency__rates") }}
{{ config(indexes=[{"columns": ["product_id", "marketplace"], "unique": true}]) }}

with found as (
    select
        sources.marketplace,
        work.key as product_id,
        nullif(work.told_by, '') as told_by
    from ops.touched_work as work
    inner join {{ marketplaces_of_sources() }} as sources (source, marketplace) on work.source = sources.source
    where work.thing = 'products' and work.key <> '*'
    union all
    select
        source as marketplace,
        key as product_id,
        null as told_by
    from ops.touched_work
    where thing = 'product_versions'
    union all
    -- A price that became known on a day whose rate changed.
    select
        versions.marketplace,
        versions.product_id,
        null as told_by
    from {{ ref("int_products__versions") }} as versions
    inner join ops.touched_work as work
        on versions.known_on = split_part(work.key, ' ', 2)::date and versions.currency = split_part(work.key, ' ', 1)
    where work.thing = 'rates'
)

select
    marketplace,
    product_id,
    case when count(*) = count(told_by) then jsonb_agg(told_by order by told_by) end as told_by
from found
group by marketplace, product_id
