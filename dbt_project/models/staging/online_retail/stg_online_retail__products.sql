-- There is no catalogue: a stock code is known from its first line on. Descriptions change and some are notes
-- of the warehouse ("damaged"), so the one most used is the name.
select
    {{ marketplace("online_retail") }} as marketplace,
    stock_code as product_id,
    mode() within group (order by description) filter (where unit_price > 0) as product_name,
    'unknown' as category,
    null::numeric as list_price_amount,
    {{ currency("online_retail") }} as currency,
    -- Products have five digits or DCGS and digits; the rest (POST, DOT, M, C2, D, S, B, BANK CHARGES, AMAZONFEE,
    -- CRUK, PADS, GIFT_...) is postage, fees, discounts, vouchers and corrections.
    stock_code ~ '^([0-9]{5}|DCGS)' as is_product,
    false as is_deleted,
    min(known_at) as known_at,
    min(partition_on) as known_on
from {{ source("online_retail", "lines") }}
group by stock_code
