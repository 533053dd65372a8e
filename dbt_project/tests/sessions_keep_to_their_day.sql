-- A session begins and ends on its UTC day, in this order, and has no more views, carts and purchases than events.
select sessions.*
from {{ touched_rows(ref("fact_session"), "session_days") }} as sessions
where
    {{ utc_day("sessions.started_at") }} <> sessions.session_on
    or {{ utc_day("sessions.ended_at") }} <> sessions.session_on
    or sessions.ended_at < sessions.started_at
    or sessions.n_product_views + sessions.n_cart_adds + sessions.n_purchases > sessions.n_events
