-- There is no catalogue: a stock code is known from its first line on. Descriptions change and some are notes
-- of the warehouse ("damaged"), so the one most used is the name.
select
    {{ marketplace("online_retail") }} as marketplace,
    stock_code as product_id,
    mode() within group (order by description) filter (where unit_price > 0) as product_name,
    'unknown' as category,
    null::numeric as list_price_amount,
    {{ currency("online_retail") }} as currency,
    {{ online_retail_is_product("stock_code") }} as is_product,
    stock_code as sku,
    null as gtin,
    null::integer as stock_quantity,
    null as status,
    false as is_deleted,
    min(known_at) as known_at,
    min(partition_on) as known_on
from {{ source("online_retail", "lines") }}
group by stock_code
