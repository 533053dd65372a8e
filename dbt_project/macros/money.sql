{#- The currency that reports are in, as a literal. -#}
{% macro reporting_currency() -%}
    '{{ var("reporting_currency") }}'
{%- endmacro %}

{#- The newest business day that any source was loaded for. A macro, so that a unit test can say one. -#}
{% macro newest_loaded_day() -%}
    (select max(partition_on) from ops.load_audit)
{%- endmacro %}

{#-
  An amount in the reporting currency; null where no rate is known. `rate` is int_currency__rates.rate of the amount's
  currency on the day of the event (ordered_on, paid_on, refunded_on).
-#}
{% macro reporting(amount, rate) -%}
    round({{ amount }} * {{ rate }}, 4)::numeric(18, 4)
{%- endmacro %}
