"""Gate: predictions. ``python -m expectations.predictions --as-of D`` audits every staged table of D.

Nothing is published that this gate has not audited. Critical rules reject a staged table and exit with 1;
what was live stays live. Who must have a prediction is worked out here from the features, not by the
scorer's code, so that a scorer that forgets entities is caught.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql

from expectations._gx import Rule, Verdict, conclude, gxe, validate
from include import lake
from include.dates import parse_day
from include.ops import Check, Severity
from include.settings import settings
from include.warehouse import publish
from include.warehouse.engine import connect

GATE = "predictions"
SOLD_WITHIN_DAYS = 91
LOOKBACK_DAYS = 168
MIN_SALE_DAYS = 3
ORDERED_WITHIN_DAYS = 365
"""Who is eligible, as docs/models.md says; a test holds them equal to the use cases'."""

MAX_MEAN_SHIFT = 0.3
MAX_COUNT_SHIFT = 0.2
"""Relative changes to the day published before, above which a warning is recorded."""

QUANTILES = ("p10", "p50", "p90")


@dataclass(frozen=True)
class Audit:
    """What the gate must know of a table that its columns do not say."""

    entity: tuple[str, ...]
    eligible: Callable[[date], pd.DataFrame] | None


def value_column(frame: pd.DataFrame) -> str:
    """The column whose mean and spread are watched: p50, else the probability, else the first number."""
    named = [name for name in frame if name == "p50"] + [name for name in frame if name.endswith("_probability")]
    return (named or list(frame.select_dtypes("number").columns))[0]


def rules(frame: pd.DataFrame, keys: Sequence[str], as_of: date) -> list[Rule]:
    """Rules on single rows, by the columns the table has: quantiles, days, probabilities, deciles, reasons."""
    out = [
        Rule("as_of_is_the_business_day", "critical", _between("as_of", as_of, as_of)),
        Rule("model_name_is_given", "critical", gxe.ExpectColumnValuesToNotBeNull(column="model_name")),
        Rule(
            "model_version_is_the_same_everywhere",
            "critical",
            gxe.ExpectColumnUniqueValueCountToBeBetween(column="model_version", min_value=0, max_value=1),
        ),
        Rule(
            "key_is_unique",
            "critical",
            gxe.ExpectCompoundColumnsToBeUnique(column_list=list(keys))
            if len(keys) > 1
            else gxe.ExpectColumnValuesToBeUnique(column=keys[0]),
        ),
    ]
    for name in QUANTILES:
        if name in frame:
            out.append(Rule(f"{name}_is_given", "critical", gxe.ExpectColumnValuesToNotBeNull(column=name)))
            finite = _between(name, 0, np.finfo(float).max)
            out.append(Rule(f"{name}_is_finite_and_not_negative", "critical", finite))
    if set(QUANTILES) <= set(frame):
        out.append(Rule("p10_is_at_most_p50", "critical", _ordered("p50", "p10")))
        out.append(Rule("p50_is_at_most_p90", "critical", _ordered("p90", "p50")))
    if "forecast_on" in frame:
        first, last = as_of + timedelta(days=1), as_of + timedelta(days=settings().forecast_horizon_days)
        out.append(Rule("forecast_on_is_within_the_horizon", "critical", _between("forecast_on", first, last)))
    for name in frame:
        if name.endswith("_probability"):
            out.append(Rule(f"{name}_is_given", "critical", gxe.ExpectColumnValuesToNotBeNull(column=name)))
            out.append(Rule(f"{name}_is_in_0_1", "critical", _between(name, 0, 1)))
    if "decile" in frame:
        out.append(Rule("decile_is_in_1_10", "critical", _between("decile", 1, 10)))
    if "reason_1" in frame:
        out.append(Rule("reason_1_is_given", "warning", gxe.ExpectColumnValuesToNotBeNull(column="reason_1")))
    return out


def _between(column: str, low, high):
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def _ordered(larger: str, smaller: str):
    return gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A=larger, column_B=smaller, or_equal=True)


def _history(as_of: date) -> pd.DataFrame:
    rows = lake.read(
        lake.table_uri("features", "demand_history"),
        filters=[("as_of", "in", [as_of])],
        columns=["marketplace", "product_id", "category", "sold_on", "units_delta"],
    ).to_pandas(date_as_object=False)
    return rows[rows["sold_on"] > pd.Timestamp(as_of) - pd.Timedelta(days=LOOKBACK_DAYS)]


def _selling(history: pd.DataFrame, keys: list[str], as_of: date, min_sale_days: int) -> pd.DataFrame:
    """Keys with sales on at least ``min_sale_days`` days of the look-back, one of them within 91 days."""
    days = history.groupby([*keys, "sold_on"])["units_delta"].sum()
    days = days[days > 1e-9].reset_index()
    per_key = days.groupby(keys)["sold_on"].agg(["size", "max"]).reset_index()
    recent = per_key["max"] > pd.Timestamp(as_of) - pd.Timedelta(days=SOLD_WITHIN_DAYS)
    return per_key.loc[recent & (per_key["size"] >= min_sale_days), keys]


def eligible_products(as_of: date) -> pd.DataFrame:
    return _selling(_history(as_of), ["marketplace", "product_id"], as_of, MIN_SALE_DAYS)


def eligible_categories(as_of: date) -> pd.DataFrame:
    history = _history(as_of)
    history = history.assign(category=history["category"].fillna("unknown"))
    return _selling(history, ["marketplace", "category"], as_of, 1)


def eligible_customers(as_of: date) -> pd.DataFrame:
    rows = lake.read(
        lake.table_uri("features", "user_behavior"),
        filters=[("as_of", "in", [as_of]), ("n_orders_365d", ">=", 1)],
        columns=["customer_id"],
    )
    return rows.to_pandas()


AUDITS = {
    "demand_forecast": Audit(("marketplace", "product_id"), eligible_products),
    "demand_forecast_category": Audit(("marketplace", "category"), eligible_categories),
    "churn_score": Audit(("customer_id",), eligible_customers),
}
"""Who must be in a table. A table that is not listed is audited by its columns, with a warning about coverage."""


def audit_of(conn: psycopg.Connection, target: str) -> Audit:
    """The table's audit; for one that is not listed the entity is its primary key without the days."""
    if target in AUDITS:
        return AUDITS[target]
    rows = conn.execute(
        """
        select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
        where i.indrelid = %s::regclass and i.indisprimary and a.attname not in ('as_of', 'forecast_on')
        order by a.attnum
        """,
        (f"predictions.{target}",),
    ).fetchall()
    return Audit(tuple(row[0] for row in rows), None)


def audit(
    target: str,
    frame: pd.DataFrame,
    what: Audit,
    eligible: pd.DataFrame | None,
    before: pd.DataFrame | None,
    as_of: date,
) -> list[Verdict | Check]:
    """All checks of one staged table. ``eligible``: who must be in it (None: unknown); ``before``: the rows of
    the newest earlier published day, if any."""
    keys = [*what.entity, *(["forecast_on"] if "forecast_on" in frame else [])]
    checks: list[Verdict | Check] = []
    if len(frame):
        checks += validate(frame, rules(frame, keys, as_of), gate=GATE, target=target, as_of=as_of, keys=keys)
    checks.append(_check(target, as_of, "coverage_is_known", "warning", 1, int(eligible is None)))
    if eligible is not None:
        checks += coverage(target, frame, eligible, what.entity, as_of)
    if "forecast_on" in frame:
        checks.append(every_day(target, frame, what.entity, as_of))
    if len(frame):
        if "decile" in frame:
            checks.append(balanced_deciles(target, frame, as_of))
        checks += plausibility(target, frame, before, value_column(frame), as_of)
    return checks


def _check(
    target: str, as_of: date, rule: str, severity: Severity, n_checked: int, bad: pd.DataFrame | int, **observed
) -> Check:
    n_failed = bad if isinstance(bad, int) else len(bad)
    if isinstance(bad, pd.DataFrame) and len(bad):
        observed["first"] = bad.head(5).astype(str).to_dict("records")
    return Check(GATE, target, as_of, rule, severity, n_failed == 0, n_checked, n_failed, observed)


def coverage(
    target: str, frame: pd.DataFrame, eligible: pd.DataFrame, entity: Sequence[str], as_of: date
) -> list[Check]:
    """Every eligible entity has a prediction, and nobody else."""
    keys = list(entity)
    both = eligible[keys].drop_duplicates().merge(frame[keys].drop_duplicates(), on=keys, how="outer", indicator=True)
    missing, extra = both.loc[both["_merge"] == "left_only", keys], both.loc[both["_merge"] == "right_only", keys]
    return [
        _check(target, as_of, "every_eligible_entity_is_predicted", "critical", len(eligible), missing),
        _check(target, as_of, "only_eligible_entities_are_predicted", "critical", len(both), extra),
        _check(target, as_of, "somebody_is_eligible", "warning", 1, int(len(eligible) == 0)),
    ]


def every_day(target: str, frame: pd.DataFrame, entity: Sequence[str], as_of: date) -> Check:
    """Each entity has exactly the days D+1 .. D+horizon (with the rule on the span: each exactly once)."""
    horizon = settings().forecast_horizon_days
    per_entity = frame.groupby(list(entity))["forecast_on"].agg(["size", "nunique"]).reset_index()
    bad = per_entity[(per_entity["size"] != horizon) | (per_entity["nunique"] != horizon)]
    return _check(target, as_of, "every_entity_has_every_day", "critical", len(per_entity), bad, horizon_days=horizon)


def balanced_deciles(target: str, frame: pd.DataFrame, as_of: date) -> Check:
    """Deciles differ by at most one customer in size, and a lower decile never has a lower probability."""
    sizes = frame.groupby("decile").size().reindex(range(1, 11), fill_value=0)
    edges = frame.groupby("decile")[value_column(frame)].agg(["min", "max"])
    is_sorted = bool((edges["min"].to_numpy()[:-1] >= edges["max"].to_numpy()[1:] - 1e-12).all())
    is_even = int(sizes.max() - sizes.min()) <= 1
    return _check(
        target, as_of, "deciles_are_even_and_sorted", "critical", len(frame),
        int(not (is_even and is_sorted)), sizes=sizes.tolist(), is_sorted=is_sorted,
    )  # fmt: skip


def plausibility(target: str, frame: pd.DataFrame, before: pd.DataFrame | None, value: str, as_of: date) -> list[Check]:
    """Warnings: all predictions equal; mean or number of rows far from the day published before."""
    checks = [
        _check(
            target, as_of, "predictions_are_not_constant", "warning", len(frame),
            int(len(frame) > 1 and frame[value].nunique() <= 1),
        )
    ]  # fmt: skip
    if before is None or before.empty:
        return checks
    for rule, now, then, limit in (
        ("mean_is_near_the_day_before", float(frame[value].mean()), float(before[value].mean()), MAX_MEAN_SHIFT),
        ("row_count_is_near_the_day_before", float(len(frame)), float(len(before)), MAX_COUNT_SHIFT),
    ):
        shift = abs(now - then) / max(abs(then), 1e-9)
        checks.append(
            _check(
                target, as_of, rule, "warning", len(frame), int(shift > limit),
                now=round(now, 6), before=round(then, 6), limit=limit, compared_with=str(before.attrs.get("as_of")),
            )
        )  # fmt: skip
    return checks


def _read(conn: psycopg.Connection, schema: str, table: str, as_of: date) -> pd.DataFrame:
    cursor = conn.execute(sql.SQL("select * from {} where as_of = %s").format(sql.Identifier(schema, table)), (as_of,))
    assert cursor.description is not None
    return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description])


def _published_before(conn: psycopg.Connection, target: str, as_of: date) -> pd.DataFrame | None:
    row = conn.execute(
        "select max(as_of) from ops.publication where target = %s and as_of < %s", (target, as_of)
    ).fetchone()
    if row is None or row[0] is None:
        return None
    frame = _read(conn, "predictions", target, row[0])
    frame.attrs["as_of"] = row[0]
    return frame


def main() -> int:
    parser = argparse.ArgumentParser(description="Audit every staged prediction table of a business day.")
    parser.add_argument("--as-of", required=True, type=parse_day, metavar="YYYY-MM-DD")
    as_of = parser.parse_args().as_of
    waiting = publish.staged(as_of)
    if not waiting:
        print(f"Nothing is staged as of {as_of}.")
        return 0
    code = 0
    for item in waiting:
        with connect("scorer") as conn:
            frame = _read(conn, "predictions_stage", item.stage_table, as_of)
            before = _published_before(conn, item.target, as_of)
            what = audit_of(conn, item.target)
            n_rows = conn.execute(
                sql.SQL("select count(*) from {}").format(sql.Identifier("predictions_stage", item.stage_table))
            ).fetchone()
        eligible = what.eligible(as_of) if what.eligible else None
        checks = audit(item.target, frame, what, eligible, before, as_of)
        assert n_rows is not None
        checks.append(
            _check(
                item.target, as_of, "staged_rows_are_the_scored_rows", "critical", item.n_rows,
                abs(n_rows[0] - item.n_rows) + abs(n_rows[0] - len(frame)), staged=n_rows[0], scored=item.n_rows,
            )
        )  # fmt: skip
        failed = conclude(checks, role="scorer")
        plain = [one.check if isinstance(one, Verdict) else one for one in checks]
        broken = [one.rule for one in plain if one.severity == "critical" and not one.is_passed]
        publish.mark_audited(item.token, not failed, ", ".join(broken))
        verdict = "rejected" if failed else "audited"
        print(f"{item.target} as of {as_of}: {len(frame):,} rows, {len(plain)} checks, {verdict}", flush=True)
        code = max(code, failed)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError, psycopg.Error) as error:
        sys.exit(f"predictions gate: {type(error).__name__}: {error}")
