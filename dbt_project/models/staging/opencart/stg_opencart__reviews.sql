-- A review names the customer who wrote it, or none; not the order.
with customers as (
    {{ newest(source("opencart", "oc_customer"), ["customer_id"], "partition_on") }}
)

select
    {{ marketplace("opencart") }} as marketplace,
    reviews.review_id::text as review_id,
    reviews.product_id::text as product_id,
    null as order_id,
    customers.email as customer_id,
    reviews.rating,
    reviews.date_added as review_at,
    reviews.status as is_approved,
    coalesce(char_length(reviews.text), 0) as n_characters,
    reviews._deleted as is_deleted,
    reviews.known_at,
    reviews.partition_on as known_on
from (select * from {{ source("opencart", "oc_review") }}) as reviews
left join customers on reviews.customer_id = customers.customer_id
