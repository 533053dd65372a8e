{{ config(indexes=[{"columns": ["order_id", "marketplace"], "unique": true}]) }}

select
    marketplace,
    order_id,
    {{ utc_day("ordered_at") }} as ordered_on
from ({{ newest(ref("int_orders__versions"), ["marketplace", "order_id"]) }}) as newest
where is_deleted
