-- As int_touched__order_keys.
{{ config(indexes=[{"columns": ["order_id", "marketplace"], "unique": true}]) }}

select
    marketplace,
    order_id,
    bool_or(days_back is null) as is_changed,
    min(days_back) as days_back
from {{ ref("int_touched__contents") }}
group by marketplace, order_id
order by order_id, marketplace
