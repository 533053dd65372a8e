{{ config(
    materialized="incremental",
    touched="reviewed",
    touches={"visitors": "customer_id"},
    indexes=[
        {"columns": ["review_id", "marketplace"], "unique": true},
        {"columns": ["product_id", "marketplace"]},
        {"columns": ["customer_id"]},
    ],
) }}

with told as not materialized (
    {{ union_sources("reviews") }}
),

-- All of a review, one version of which is of a touched product.
versions as (
    select *
    from told
    where
        (marketplace, review_id) in (
            select
                those.marketplace,
                those.review_id
            from told as those
            where {{ where_touched("reviewed", "those") }}
        )
)

select
    review_id,
    marketplace,
    product_id,
    order_id,
    customer_id,
    rating::numeric(4, 2) as rating,
    review_at,
    {{ utc_day("review_at") }} as review_on,
    is_approved,
    n_characters,
    known_at
from ({{ newest("versions", ["marketplace", "review_id"]) }}) as newest
-- Of the newest versions, not before: a review may have been of another product.
where is_deleted is not true and {{ where_touched("reviewed") }}
