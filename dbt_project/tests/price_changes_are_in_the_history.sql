-- Warned: looked up in dim_product_history, a product has the new price on the day of a change and the old one on the
-- day before. Days on which it was not in the catalogue, or had no price or one in another currency, are left out.
{{ config(severity="warn", meta={"severity": "warning"}) }}

select
    changes.*,
    before.list_price_amount as price_before_amount,
    after.list_price_amount as price_after_amount
from {{ ref("fact_price_change") }} as changes
{{ as_of_join(
    ref("dim_product_history"),
    ["marketplace", "product_id"],
    on="changes.changed_on - 1",
    of="changes",
    name="before",
    strict=true
) }}
{{ as_of_join(
    ref("dim_product_history"),
    ["marketplace", "product_id"],
    on="changes.changed_on",
    of="changes",
    name="after",
    strict=true
) }}
where
    (
        changes.old_list_price_amount <> before.list_price_amount
        and changes.currency = before.currency
        and not before.is_deleted
    )
    or (
        changes.new_list_price_amount <> after.list_price_amount
        and changes.currency = after.currency
        and not after.is_deleted
    )
    or after.valid_from is null
