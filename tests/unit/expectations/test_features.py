"""The features gate on frames: what is right passes, each way of being wrong is named."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pyarrow as pa
import pytest

from expectations import features as gate
from expectations._gx import Verdict

AS_OF, CUTOFF = date(2025, 12, 31), date(2025, 12, 1)
BOTH = [CUTOFF, AS_OF]
N_CUSTOMERS = 6


def core() -> gate.Core:
    """Six customers order two teas each; the last two only after the cutoff; a seventh cancelled; an eighth is gone."""
    orders, items = [], []
    for n in range(N_CUSTOMERS + 2):
        ordered_on = CUTOFF - timedelta(days=3) if n < 4 else AS_OF - timedelta(days=3)
        status = "canceled" if n == N_CUSTOMERS else "delivered"
        known = {"ordered_on": ordered_on, "known_at": pd.Timestamp(ordered_on, tz="UTC"), "known_on": ordered_on,
                 "is_deleted": False}  # fmt: skip
        order = {"marketplace": "m", "order_id": f"o{n}"}
        orders.append(order | {"customer_id": f"c{n}", "status": "created"} | known)
        later = ordered_on + timedelta(days=1)
        news = {"status": status, "is_deleted": n > N_CUSTOMERS}
        orders.append(orders[-1] | news | {"known_on": later, "known_at": pd.Timestamp(later, tz="UTC")})
        items.append(order | {"order_item_id": 1, "vendor_id": "v", "product_id": "tea", "quantity": 2} | known)
    frames = [pd.DataFrame(rows).astype({"ordered_on": "datetime64[ms]", "known_on": "datetime64[ms]"})
              for rows in (orders, items)]  # fmt: skip
    return gate.Core(
        gate.in_order(frames[0], ["marketplace", "order_id"]),
        gate.in_order(frames[1], ["marketplace", "order_id", "order_item_id"]),
    )


def user_behavior() -> pd.DataFrame:
    rows = [
        {
            "as_of": as_of, "customer_id": f"c{n}", "recency_days": 3, "tenure_days": 3, "n_orders": 1,
            "n_orders_365d": 1, "order_amount_total": 20.0, "order_amount_90d": 20.0, "order_amount_365d": 20.0,
            "avg_order_amount": 20.0, "avg_days_between_orders": None, "days_since_last_session": 2.0,
            "last_order_on": as_of - timedelta(days=3),
        }
        for as_of, customers in ((CUTOFF, 4), (AS_OF, N_CUSTOMERS)) for n in range(customers)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def vendor_performance() -> pd.DataFrame:
    rates = {"late_rate_90d": 0.5, "late_rate_shrunk_90d": 0.4, "cancel_rate_90d": 0.1}
    return pd.DataFrame(
        [{"as_of": AS_OF, "marketplace": "m", "vendor_id": "v", "n_delivered_90d": 2, "n_late_90d": 1} | rates]
    )


def demand_history() -> pd.DataFrame:
    """Twelve units; the cancelled order's were counted once and taken back."""
    first, last = CUTOFF - timedelta(days=3), AS_OF - timedelta(days=3)
    rows = [(first, first, 8.0), (last, last, 6.0), (last, last + timedelta(days=1), -2.0)]
    frame = pd.DataFrame(rows, columns=["sold_on", "known_on", "units_delta"])
    return frame.assign(as_of=AS_OF, marketplace="m", product_id="tea", category="drinks", revenue_delta=1.0)


VIEWS = {
    "user_behavior": (user_behavior, BOTH),
    "vendor_performance": (vendor_performance, [AS_OF]),
    "demand_history": (demand_history, [AS_OF]),
}


def broken(
    view: str, frame: pd.DataFrame, before: pd.DataFrame | None = None, severity: str = "critical"
) -> dict[str, int]:
    """Rules that ``frame`` breaks, with the rows that broke them."""
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    checks = gate.audit(view, rows, before, core(), VIEWS[view][1])
    plain = [one.check if isinstance(one, Verdict) else one for one in checks]
    assert len({check.rule for check in plain}) == len(plain)
    return {check.rule: check.n_failed for check in plain if check.severity == severity and not check.is_passed}


@pytest.mark.parametrize("view", VIEWS)
def test_right_view_passes(view: str) -> None:
    frame = VIEWS[view][0]()
    assert broken(view, frame) == {}
    today = frame[frame["as_of"] == AS_OF].assign(as_of=pd.Timestamp(AS_OF) - pd.Timedelta(days=1))
    assert broken(view, frame, before=today, severity="warning") == {}


def changed(frame: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """``frame`` with ``value`` in the last row."""
    values = frame[column].astype(object).tolist()
    values[-1] = value
    return frame.assign(**{column: values})


@pytest.mark.parametrize(
    ("view", "column", "value", "rule"),
    [
        ("user_behavior", "customer_id", "c0", "key_is_unique"),
        ("user_behavior", "customer_id", None, "customer_id_is_given"),
        ("user_behavior", "n_orders", 0, "n_orders_is_positive"),
        ("user_behavior", "recency_days", -1, "recency_is_not_negative"),
        ("user_behavior", "last_order_on", AS_OF + timedelta(days=1), "last_order_is_not_after_as_of"),
        ("user_behavior", "days_since_last_session", -1.0, "last_session_is_not_after_as_of"),
        ("user_behavior", "n_orders_365d", 2, "windows_are_nested"),
        ("user_behavior", "order_amount_total", None, "order_amount_total_is_given"),
        ("user_behavior", "order_amount_total", float("inf"), "numbers_are_finite"),
        ("vendor_performance", "late_rate_shrunk_90d", 1.01, "late_rate_shrunk_90d_is_in_0_1"),
        ("vendor_performance", "n_late_90d", 3, "late_deliveries_are_deliveries"),
        ("vendor_performance", "vendor_id", "w", "every_selling_vendor_is_there"),
        ("demand_history", "known_on", AS_OF + timedelta(days=1), "known_on_is_not_after_as_of"),
        ("demand_history", "sold_on", AS_OF + timedelta(days=1), "sold_on_is_not_after_as_of"),
        ("demand_history", "units_delta", 2.0, "deltas_add_up_to_the_units_known"),
        ("demand_history", "category", None, "category_is_given"),
    ],
)
def test_wrong_row_is_named(view: str, column: str, value: object, rule: str) -> None:
    found = broken(view, changed(VIEWS[view][0](), column, value))
    assert rule in found


def test_nan_is_not_taken_for_null() -> None:
    rows = pa.table({"recency": pa.array([1.0, float("nan"), None])})
    check = gate.finite("user_behavior", rows, AS_OF)
    assert (check.is_passed, check.n_failed) == (False, 1)


def test_customer_missing_at_a_past_cutoff_is_counted() -> None:
    frame = user_behavior()
    assert broken("user_behavior", frame.drop(index=0)) == {"one_row_per_customer_with_an_order": 1}


@pytest.mark.parametrize("view", VIEWS)
def test_view_without_the_day_is_rejected(view: str) -> None:
    frame = VIEWS[view][0]()
    assert broken(view, frame[frame["as_of"] != AS_OF]) != {}


def test_drift_only_warns() -> None:
    frame = user_behavior()
    before = frame[frame["as_of"] == AS_OF].iloc[:3].assign(days_since_last_session=None, as_of=pd.Timestamp(CUTOFF))
    found = broken("user_behavior", frame, before=before, severity="warning")
    assert set(found) == {"row_count_is_near_the_as_of_before", "null_shares_are_near_the_as_of_before"}
    assert broken("user_behavior", frame, before=before) == {}
