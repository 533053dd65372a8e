{{ config(indexes=[{"columns": ["order_id", "marketplace"], "unique": true}], post_hook="analyze {{ this }}") }}

select
    *,
    {{ utc_day("ordered_at") }} as ordered_on
from ({{ newest(ref("int_orders__versions"), ["marketplace", "order_id"]) }}) as newest
where is_deleted is not true
