{{ config(
    materialized="incremental",
    touched="contents",
    indexes=[
        {"columns": ["order_id", "order_item_id", "marketplace"], "unique": true},
        {"columns": ["marketplace", "ordered_on"]},
    ],
    meta={"lookback_days": 1, "bi_indexes": [["marketplace", "vendor_id", "item_amount"]]},
) }}

select
    order_id,
    order_item_id,
    marketplace,
    product_id,
    vendor_id,
    customer_id,
    ordered_at,
    ordered_on,
    quantity,
    unit_amount,
    item_amount,
    freight_amount,
    currency,
    known_at,
    unit_reporting_amount,
    item_reporting_amount,
    freight_reporting_amount,
    {{ reporting_currency() }} as reporting_currency,
    is_sale
from {{ ref("int_order_items__current") }}
where {{ where_touched("contents") }}
