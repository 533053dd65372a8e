"""Gate: features. ``python -m expectations.features --as-of D`` audits the views of D before any model sees them.

Critical: grain, keys, finite numbers, nothing from after the day, and as many customers as the lake's orders
say there must be (counted here from ``lake/core``, not by the Spark code). Warnings: how far the row counts moved
since the view's previous day, and shares of nulls. Exit 1 when something critical is broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pandas as pd
from deltalake import DeltaTable

from expectations._gx import Rule, Verdict, conclude, gxe, validate
from include import lake
from include.dates import parse_day
from include.ops import Check
from include.settings import settings

GATE = "features"
ROLE = "scorer"
MAX_COUNT_SHIFT = 0.2
"""Relative change of a view's row count since its previous day, above which a warning is recorded."""

KEYS = {
    "user_behavior": ["as_of", "customer_id"],
    "vendor_performance": ["as_of", "marketplace", "vendor_id"],
    "demand_history": ["as_of", "marketplace", "product_id", "sold_on", "known_on"],
}
NULLABLE = {
    "user_behavior": ["avg_days_between_orders", "avg_delivery_days", "days_since_last_session"],
    "vendor_performance": ["late_rate_90d", "late_rate_shrunk_90d", "avg_delivery_days_90d", "cancel_rate_90d"],
    "demand_history": ["category"],
}
"""What may be null: rates and means of nothing."""

GONE = ("canceled", "unavailable")


def rules(view: str, frame: pd.DataFrame, as_of: date) -> list[Rule]:
    """Rules on the rows of one view's day."""
    out = [
        Rule("key_is_unique", "critical", gxe.ExpectCompoundColumnsToBeUnique(column_list=KEYS[view])),
        Rule("as_of_is_the_business_day", "critical", _between("as_of", as_of, as_of)),
        Rule("there_are_rows", "critical", gxe.ExpectTableRowCountToBeBetween(min_value=1)),
    ]
    for name in frame:
        if name not in NULLABLE[view]:
            out.append(Rule(f"{name}_is_given", "critical", gxe.ExpectColumnValuesToNotBeNull(column=name)))
        if frame[name].dtype.kind == "f":
            most = float(np.finfo("float64").max)
            out.append(Rule(f"{name}_is_finite", "critical", _between(name, -most, most)))
    if view == "user_behavior":
        out += [
            Rule("recency_is_not_negative", "critical", _between("recency_days", 0, None)),
            Rule("last_order_is_not_after_the_day", "critical", _between("last_order_on", None, as_of)),
            Rule("tenure_is_at_least_recency", "critical", _pair("tenure_days", "recency_days")),
            Rule("orders_of_90_days_are_at_most_all", "critical", _pair("n_orders", "n_orders_90d")),
        ]
    if view == "vendor_performance":
        rates = [name for name in frame if "_rate" in name]
        out += [Rule(f"{name}_is_in_0_1", "critical", _between(name, 0, 1)) for name in rates]
    if view == "demand_history":
        first = as_of - timedelta(days=settings().feature_history_days)
        out += [
            Rule("known_on_is_not_after_the_day", "critical", _between("known_on", None, as_of)),
            Rule("sold_on_is_within_the_history", "critical", _between("sold_on", first, as_of)),
        ]
    return out


def counts(view: str, frame: pd.DataFrame, as_of: date) -> list[Check]:
    """Whole-table checks that need another count to compare with."""
    found = []
    if view == "user_behavior":
        wanted = customers_with_an_order(as_of)
        there = frame["customer_id"].nunique()
        found.append(
            Check(
                GATE, view, as_of, "every_customer_with_an_order_is_there", "critical", there == wanted,
                wanted, abs(there - wanted), {"observed": there, "wanted": wanted},
            )
        )  # fmt: skip
    before = previous_count(view, as_of)
    if before:
        shift = abs(len(frame) - before) / before
        found.append(
            Check(
                GATE, view, as_of, "row_count_is_near_the_previous_day", "warning", shift <= MAX_COUNT_SHIFT,
                len(frame), 0 if shift <= MAX_COUNT_SHIFT else 1, {"observed": len(frame), "before": before},
            )
        )  # fmt: skip
    return found


def customers_with_an_order(as_of: date) -> int:
    """How many customers have an order that was known, and not cancelled, by the end of the day."""
    columns = ["marketplace", "order_id", "customer_id", "status", "known_at", "known_on"]
    versions = lake.read(lake.table_uri("core", "orders"), [("known_on", "<=", as_of)], columns).to_pandas()
    newest = versions.sort_values(["known_at", "known_on"]).drop_duplicates(["marketplace", "order_id"], keep="last")
    return newest.loc[~newest["status"].isin(GONE), "customer_id"].nunique()


def previous_count(view: str, as_of: date) -> int | None:
    """Rows of the newest earlier day of the view; None where there is none."""
    days = {
        date.fromisoformat(part["as_of"])
        for part in DeltaTable(lake.table_uri("features", view)).partitions()
        if date.fromisoformat(part["as_of"]) < as_of
    }
    if not days:
        return None
    return lake.read(lake.table_uri("features", view), [("as_of", "=", max(days))], ["as_of"]).num_rows


def _between(column: str, low, high):
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def _pair(larger: str, smaller: str):
    return gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A=larger, column_B=smaller, or_equal=True)


def audit(as_of: date, views: Sequence[str]) -> list[Verdict | Check]:
    """Verdicts on every view of the day; ``FileNotFoundError`` where a view was never built."""
    found: list[Verdict | Check] = []
    for view in views:
        frame = lake.read(lake.table_uri("features", view), [("as_of", "=", as_of)]).to_pandas()
        found += validate(frame, rules(view, frame, as_of), gate=GATE, target=view, as_of=as_of, keys=KEYS[view])
        found += counts(view, frame, as_of)
        print(f"{view} as of {as_of}: {len(frame):,} rows")
    return found


def main() -> int:
    """Audit, record, and say what is broken."""
    parser = argparse.ArgumentParser(description="Audit the feature views of a business day")
    parser.add_argument("--as-of", type=parse_day, required=True, metavar="YYYY-MM-DD")
    args = parser.parse_args()
    try:
        return conclude(audit(args.as_of, list(KEYS)), role=ROLE)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
