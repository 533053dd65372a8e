-- Who is told of in the same rows as before, though an order changed, is as they were.
{{ config(indexes=[{"columns": ["customer_id"], "unique": true}]) }}

select distinct key as customer_id
from ops.touched_work
where thing = 'customers' and key <> '*'
order by customer_id
