{{ config(
    materialized="incremental",
    touched="orders",
    indexes=[{"columns": ["order_id", "marketplace"], "unique": true}, {"columns": ["explanation", "marketplace"]}],
    meta={"lookback_days": 1},
) }}

{%- set paying = [] %}
{%- for name in sources_with("payments") %} {%- do paying.append(marketplace(name)) %} {%- endfor %}

with orders as (
    select *
    from {{ ref("fact_order") }}
    where {{ where_touched("orders") }}
),

payments as (
    select
        marketplace,
        order_id,
        sum(payment_amount) as paid_amount,
        sum(payment_reporting_amount) as paid_reporting_amount,
        max(n_installments) as n_installments
    from {{ ref("fact_payment") }}
    where {{ where_touched("orders") }}
    group by marketplace, order_id
),

refunds as (
    select
        marketplace,
        order_id,
        sum(refund_amount) as refunded_amount,
        sum(refund_reporting_amount) as refunded_reporting_amount
    from {{ ref("fact_refund") }}
    -- A cancellation says that an order is off, not that money was given back.
    where kind <> 'cancellation' and {{ where_touched("orders") }}
    group by marketplace, order_id
),

adjustments as (
    select *
    from {{ ref("int_adjustments__current") }}
    where {{ where_touched("orders") }}
),

corrected as (
    -- The payment was told for the items as they were first.
    select distinct
        marketplace,
        order_id
    from (
        select
            marketplace,
            order_id
        from {{ ref("int_order_items__versions") }}
        where {{ where_touched("orders") }}
        group by marketplace, order_id, order_item_id
        having
            min(item_amount + freight_amount) <> max(item_amount + freight_amount)
            or bool_or(coalesce(is_deleted, false))
    ) as items
),

compared as (
    select
        orders.*,
        corrected.order_id is not null as is_corrected,
        payments.paid_amount,
        payments.paid_reporting_amount,
        payments.n_installments,
        coalesce(refunds.refunded_amount, 0) as refunded_amount,
        case when refunds.order_id is null then 0 else refunds.refunded_reporting_amount end
            as refunded_reporting_amount,
        coalesce(adjustments.tax_amount, 0) as tax_amount,
        coalesce(adjustments.discount_amount, 0) as discount_amount,
        coalesce(adjustments.other_amount, 0) as other_amount,
        payments.paid_amount - orders.order_amount as difference_amount
    from orders
    left join payments on orders.marketplace = payments.marketplace and orders.order_id = payments.order_id
    left join refunds on orders.marketplace = refunds.marketplace and orders.order_id = refunds.order_id
    left join adjustments on orders.marketplace = adjustments.marketplace and orders.order_id = adjustments.order_id
    left join corrected on orders.marketplace = corrected.marketplace and orders.order_id = corrected.order_id
)

select
    order_id,
    marketplace,
    ordered_on,
    status,
    order_amount,
    paid_amount,
    refunded_amount,
    tax_amount,
    discount_amount,
    difference_amount,
    case
        when marketplace not in ({{ (paying or ["''"]) | join(", ") }}) then 'payments_not_told'
        when paid_amount is null and status in ('canceled', 'unavailable') then 'canceled_unpaid'
        when paid_amount is null then 'payment_missing'
        when n_items = 0 then 'items_missing'
        when difference_amount = 0 then 'agrees'
        -- Percentages of single lines are rounded, and so are those of the whole order: a cent for each.
        when abs(difference_amount - tax_amount - discount_amount - other_amount) <= 0.01 * (n_items + 1)
            then
                case
                    when tax_amount <> 0 or discount_amount <> 0 or other_amount <> 0 then 'tax_and_discount'
                    else 'rounding'
                end
        when is_corrected then 'items_corrected'
        when difference_amount > 0 and n_installments > 1 then 'instalment_interest'
        when refunded_amount <> 0 and abs(difference_amount + refunded_amount) <= 0.01 * (n_items + 1)
            then 'refunded'
        else 'unexplained'
    end as explanation,
    currency,
    order_reporting_amount,
    paid_reporting_amount,
    refunded_reporting_amount,
    paid_reporting_amount - order_reporting_amount as difference_reporting_amount,
    reporting_currency
from compared
