with payments as (
    {{ union_sources("payments") }}
)

{{ newest("payments", ["marketplace", "order_id", "payment_id"]) }}
