{#-
  The periods of equal list price of each product that has one, with what it was before and the lowest of the 30 days
  before (what EU directive 98/6/EC, article 6a, asks shops to show beside a reduced price).
-#}
{% macro price_periods() -%}
    select
        prices.marketplace,
        prices.product_id,
        prices.valid_from,
        prices.valid_to,
        prices.is_current,
        prices.list_price_amount::numeric(18, 4) as list_price_amount,
        prices.previous_amount::numeric(18, 4) as previous_list_price_amount,
        lowest.amount::numeric(18, 4) as lowest_30_day_amount,
        prices.currency,
        {{ reporting("prices.list_price_amount", "rates.rate") }} as list_price_reporting_amount,
        {{ reporting("prices.previous_amount", "rates.rate") }} as previous_list_price_reporting_amount,
        {{ reporting("lowest.amount", "rates.rate") }} as lowest_30_day_reporting_amount,
        {{ reporting_currency() }} as reporting_currency,
        {{ share("prices.list_price_amount - prices.previous_amount", "prices.previous_amount") }} as change_share
    from (
        select
            *,
            lag(case when not is_deleted then list_price_amount end) over (
                partition by marketplace, product_id, currency order by valid_from
            ) as previous_amount
        from {{ ref("int_products__prices") }}
    ) as prices
    left join lateral (
        select min(earlier.list_price_amount) as amount
        from {{ ref("int_products__prices") }} as earlier
        where
            earlier.product_id = prices.product_id
            and earlier.marketplace = prices.marketplace
            and earlier.currency = prices.currency
            and not earlier.is_deleted
            and earlier.valid_from < prices.valid_from
            and earlier.valid_to > prices.valid_from - 30
    ) as lowest on true
    left join {{ ref("int_currency__rates") }} as rates
        on prices.currency = rates.currency and prices.valid_from = rates.rate_on
    where prices.list_price_amount is not null and not prices.is_deleted
{%- endmacro %}

{#-
  The periods that the price report has to make anew: those that are not the same any more, and those with a touched day
  in the four weeks before or after their begin.
-#}
{% macro stale_price_periods() -%}
    {%- set told = [
        "valid_to", "list_price_amount", "previous_list_price_amount", "lowest_30_day_amount", "currency",
        "list_price_reporting_amount",
    ] -%}
    select
        marketplace,
        product_id,
        valid_from
    from ({{ price_periods() }}) as periods
    full join {{ this }} as there using (marketplace, product_id, valid_from)
    where
        there.is_current is null
        or periods.is_current is null
        {%- for column in told %}
        or periods.{{ column }} is distinct from there.{{ column }}
        {%- endfor %}
    union all
    select
        there.marketplace,
        there.product_id,
        there.valid_from
    from {{ this }} as there
    where exists (
        select 1
        from {{ touched("sale_days") }} as touched
        where
            touched.marketplace = there.marketplace
            and touched.date_on between there.valid_from - 28 and there.valid_from + 27
    )
{%- endmacro %}
