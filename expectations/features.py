"""Gate: features. ``python -m expectations.features --as-of D`` audits the feature views of D.

Nothing trains on or scores with a view that broke a critical rule. How many rows, units and vendors there must
be is counted here from ``lake/core`` again, not with the code that built the views.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from expectations._gx import Rule, Verdict, conclude, gxe, validate
from include import lake
from include.dates import month_firsts, parse_day
from include.ops import Check, Severity
from include.settings import settings

GATE = "features"

KEYS = {
    "user_behavior": ["as_of", "customer_id"],
    "vendor_performance": ["as_of", "marketplace", "vendor_id"],
    "demand_history": ["as_of", "marketplace", "product_id", "sold_on", "known_on"],
}
NOT_SOLD = ("canceled", "unavailable")
NOT_DEMAND = (*NOT_SOLD, "returned")
VENDOR_WINDOW_DAYS = 90

MAX_COUNT_SHIFT = 0.2
MAX_NULL_SHIFT = 0.1
"""Changes to the ``as_of`` before that are worth a warning: of the rows, relative; of a share of nulls, absolute."""


def rules(view: str) -> list[Rule]:
    """Rules on single rows of a view."""
    common = [
        Rule("key_is_unique", "critical", gxe.ExpectCompoundColumnsToBeUnique(column_list=KEYS[view])),
        *[Rule(f"{key}_is_given", "critical", gxe.ExpectColumnValuesToNotBeNull(column=key)) for key in KEYS[view]],
    ]
    if view == "user_behavior":
        amounts = ("order_amount_total", "order_amount_90d", "order_amount_365d", "avg_order_amount")
        return [
            *common,
            *[Rule(f"{name}_is_given", "critical", gxe.ExpectColumnValuesToNotBeNull(column=name)) for name in amounts],
            Rule("n_orders_is_positive", "critical", _at_least("n_orders", 1)),
            Rule("recency_is_not_negative", "critical", _at_least("recency_days", 0)),
            Rule("tenure_is_at_least_recency", "critical", _ordered("tenure_days", "recency_days")),
            Rule("last_order_is_not_after_as_of", "critical", _ordered("as_of", "last_order_on")),
            Rule("last_session_is_not_after_as_of", "critical", _at_least("days_since_last_session", 0)),
            Rule("windows_are_nested", "critical", _ordered("n_orders", "n_orders_365d")),
        ]
    if view == "vendor_performance":
        rates = ("late_rate_90d", "late_rate_shrunk_90d", "cancel_rate_90d")
        return [
            *common,
            *[Rule(f"{name}_is_in_0_1", "critical", _between(name, 0, 1)) for name in rates],
            Rule("late_deliveries_are_deliveries", "critical", _ordered("n_delivered_90d", "n_late_90d")),
        ]
    return [
        *common,
        Rule("category_is_given", "critical", gxe.ExpectColumnValuesToNotBeNull(column="category")),
        Rule("known_on_is_not_after_as_of", "critical", _ordered("as_of", "known_on")),
        Rule("sold_on_is_not_after_as_of", "critical", _ordered("as_of", "sold_on")),
    ]


def _between(column: str, low: float | None, high: float | None):
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def _at_least(column: str, low: float):
    return _between(column, low, None)


def _ordered(larger: str, smaller: str):
    return gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A=larger, column_B=smaller, or_equal=True)


@dataclass(frozen=True)
class Core:
    """Versions of orders and of order items, oldest news first, with ``key`` (a number per order, or item).

    A version that ``is_deleted`` ends its key until a newer one brings it back.
    """

    orders: pd.DataFrame
    items: pd.DataFrame

    @classmethod
    def read(cls, last: date) -> Core:
        """From ``lake/core``; raises ``FileNotFoundError`` when it was never exported."""
        return cls(
            _versions("orders", last, ["marketplace", "order_id"], ["customer_id", "status", "ordered_on"]),
            _versions(
                "order_items",
                last,
                ["marketplace", "order_id", "order_item_id"],
                ["vendor_id", "product_id", "quantity"],
            ),
        )

    def orders_as_of(self, as_of: date) -> pd.DataFrame:
        """Grain: order. Known by ``as_of`` and placed by then."""
        orders = _newest(self.orders, as_of)
        return orders[orders["ordered_on"] <= pd.Timestamp(as_of)]

    def n_customers(self, as_of: date) -> int:
        """Customers with an order that was not cancelled."""
        orders = self.orders_as_of(as_of)
        return orders.loc[~orders["status"].isin(NOT_SOLD), "customer_id"].nunique()

    def lines_as_of(self, as_of: date, days: int) -> pd.DataFrame:
        """Grain: order item, of orders placed in the ``days`` days to ``as_of``, with the order's status."""
        orders = self.orders_as_of(as_of)
        recent = orders[orders["ordered_on"] > pd.Timestamp(as_of) - pd.Timedelta(days=days)]
        keys = ["marketplace", "order_id"]
        return _newest(self.items, as_of).merge(recent[[*keys, "status"]], on=keys)


def _versions(table: str, last: date, key: list[str], columns: list[str]) -> pd.DataFrame:
    rows = lake.read(
        lake.table_uri("core", table),
        filters=[("known_month", "<=", last), ("known_on", "<=", last)],
        columns=[*key, *columns, "is_deleted", "known_at", "known_on"],
    )
    return in_order(rows.to_pandas(date_as_object=False), key)


def in_order(versions: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Versions as ``Core`` holds them."""
    rows = versions.sort_values(["known_at", "known_on"], kind="stable", ignore_index=True)
    return rows.assign(key=rows.groupby(key, sort=False).ngroup())


def _newest(versions: pd.DataFrame, as_of: date) -> pd.DataFrame:
    newest = versions[versions["known_on"] <= pd.Timestamp(as_of)].drop_duplicates("key", keep="last")
    return newest[~newest["is_deleted"].eq(True)]


def _check(
    view: str, as_of: date, rule: str, severity: Severity, n_checked: int, n_failed: int, **observed: object
) -> Check:
    return Check(GATE, view, as_of, rule, severity, n_failed == 0, n_checked, n_failed, observed)


def finite(view: str, rows: pa.Table, as_of: date) -> Check:
    """No NaN and no infinity in any number; null is not NaN, and only Arrow tells them apart."""
    bad = {}
    for field in rows.schema:
        if pa.types.is_floating(field.type):
            n_bad = pc.sum(pc.invert(pc.is_finite(rows[field.name]))).as_py() or 0
            if n_bad:
                bad[field.name] = n_bad
    return _check(view, as_of, "numbers_are_finite", "critical", rows.num_rows, sum(bad.values()), columns=bad)


def totals(view: str, frame: pd.DataFrame, core: Core, as_ofs: Sequence[date]) -> list[Check]:
    """Counts of a view against counts made from ``lake/core``, at every ``as_of`` that it was built for."""
    as_of = max(as_ofs)
    today = frame[frame["as_of"] == pd.Timestamp(as_of)]
    if view == "user_behavior":
        found = frame["as_of"].value_counts()
        expected = {day: core.n_customers(day) for day in as_ofs}
        wrong = {
            str(day): {"rows": int(found.get(pd.Timestamp(day), 0)), "customers": n}
            for day, n in expected.items()
            if found.get(pd.Timestamp(day), 0) != n
        }
        n_wrong = sum(abs(one["rows"] - one["customers"]) for one in wrong.values())
        return [
            _check(view, as_of, "one_row_per_customer_with_an_order", "critical", len(frame), n_wrong, wrong=wrong),
            _check(view, as_of, "somebody_ordered", "critical", len(today), int(today.empty)),
        ]
    if view == "vendor_performance":
        lines = core.lines_as_of(as_of, VENDOR_WINDOW_DAYS)
        keys = ["marketplace", "vendor_id"]
        selling = lines.loc[lines["vendor_id"].notna(), keys].drop_duplicates()
        found = selling.merge(today[keys], on=keys)
        n_missing = len(selling) - len(found)
        return [_check(view, as_of, "every_selling_vendor_is_there", "critical", len(selling), n_missing)]
    lines = core.lines_as_of(as_of, settings().feature_history_days)
    counted = lines[~lines["status"].isin(NOT_DEMAND) & lines["product_id"].notna()]
    units, expected = float(today["units_delta"].sum()), float(counted["quantity"].sum())
    return [
        _check(
            view, as_of, "deltas_add_up_to_the_units_known", "critical", len(today),
            int(abs(units - expected) > 0.5), units=units, expected=expected,
        ),
        _check(view, as_of, "something_sold", "critical", len(today), int(today.empty)),
    ]  # fmt: skip


def drift(view: str, frame: pd.DataFrame, before: pd.DataFrame | None, as_of: date) -> list[Check]:
    """Warnings: rows or shares of nulls far from those of the ``as_of`` before."""
    today = frame[frame["as_of"] == pd.Timestamp(as_of)]
    if before is None or before.empty or today.empty:
        return []
    compared = str(before["as_of"].iloc[0].date())
    shift = abs(len(today) - len(before)) / len(before)
    now, then = today.isna().mean(), before.isna().mean()
    moved = (now - then).abs()
    far = {
        name: [round(float(then[name]), 4), round(float(now[name]), 4)] for name in moved[moved > MAX_NULL_SHIFT].index
    }
    return [
        _check(
            view, as_of, "row_count_is_near_the_as_of_before", "warning", len(today), int(shift > MAX_COUNT_SHIFT),
            now=len(today), before=len(before), compared_with=compared,
        ),
        _check(
            view, as_of, "null_shares_are_near_the_as_of_before", "warning", len(today), len(far),
            then_and_now=far, compared_with=compared,
        ),
    ]  # fmt: skip


def audit(
    view: str, rows: pa.Table, before: pd.DataFrame | None, core: Core, as_ofs: Sequence[date]
) -> list[Verdict | Check]:
    """All checks of one view. ``rows``: its partitions ``as_ofs``; ``before``: an earlier partition, if any."""
    as_of = max(as_ofs)
    frame = rows.to_pandas(date_as_object=False)
    checks: list[Verdict | Check] = [finite(view, rows, as_of)]
    if len(frame):
        checks += validate(frame, rules(view), gate=GATE, target=view, as_of=as_of, keys=KEYS[view])
    return [*checks, *totals(view, frame, core, as_ofs), *drift(view, frame, before, as_of)]


def as_ofs_of(view: str, as_of: date) -> list[date]:
    """The partitions that a run of the day builds: for user_behavior the training cutoffs too."""
    if view == "user_behavior":
        return sorted({*month_firsts(as_of, settings().training_cutoffs), as_of})
    return [as_of]


def _before(uri: str, as_of: date) -> pd.DataFrame | None:
    """The newest earlier partition, not older than 40 days."""
    recent = [("as_of", "<", as_of), ("as_of", ">=", as_of - timedelta(days=40))]
    days = lake.read(uri, filters=recent, columns=["as_of"])["as_of"]
    if not len(days):
        return None
    newest = pc.max(days).as_py()
    return lake.read(uri, filters=[("as_of", "=", newest)]).to_pandas(date_as_object=False)


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when every view may be used, 1 when a critical rule is broken or a view is not there."""
    parser = argparse.ArgumentParser(prog="python -m expectations.features", description=__doc__.split("\n")[0])
    parser.add_argument("--as-of", type=parse_day, required=True, metavar="YYYY-MM-DD")
    as_of = parser.parse_args(argv).as_of
    core = Core.read(as_of)
    code = 0
    for view in KEYS:
        uri, as_ofs = lake.table_uri("features", view), as_ofs_of(view, as_of)
        rows = lake.read(uri, filters=[("as_of", "in", as_ofs)])
        checks = audit(view, rows, _before(uri, as_of), core, as_ofs)
        failed = conclude(checks, role="transformer")
        verdict = "rejected" if failed else "passed"
        print(f"{view} as of {as_of}: {rows.num_rows:,} rows, {len(checks)} checks, {verdict}", flush=True)
        code = max(code, failed)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError, psycopg.Error) as error:
        sys.exit(f"features gate: {error}")
