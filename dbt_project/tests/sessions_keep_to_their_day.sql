-- A session begins and ends on its UTC day, in this order, and has no more views, carts and purchases than events.
select *
from {{ touched_rows(ref("fact_session"), "session_days") }} as sessions
where
    {{ utc_day("started_at") }} <> session_on
    or {{ utc_day("ended_at") }} <> session_on
    or ended_at < started_at
    or n_product_views + n_cart_adds + n_purchases > n_events
