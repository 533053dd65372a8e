"""Watch the whole way: freshness, volume, drift, forecasts against what happened.

``python -m include.monitor --as-of D`` writes ``ops.monitor_result`` and exits 1 when a critical check fails.
A rerun replaces the day's results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import psycopg

from include.dates import parse_day
from include.warehouse.engine import connect

VOLUME_Z = 4.0
"""A day whose rows lie further than this many standard deviations from the same weekday's mean is odd."""

COVERAGE_RANGE = (0.6, 0.95)
"""Where the share of actual days inside [p10, p90] should lie; 0.8 is meant."""

DRIFT_SHIFT = 0.15
"""Mean churn probability that moves more than this from one night to the next is worth a look."""


@dataclass(frozen=True)
class Finding:
    """One check of one subject."""

    check_name: str
    subject: str
    value: float | None
    threshold: float | None
    is_ok: bool
    severity: str
    detail: str = ""


def freshness(conn: psycopg.Connection, as_of: date) -> Iterator[Finding]:
    """Every prediction table is published as of the day: critical."""
    rows = conn.execute(
        """
        select t.relname, (select max(as_of) from ops.publication p where p.target = t.relname and p.as_of <= %(d)s)
        from pg_class t join pg_namespace n on n.oid = t.relnamespace
        where n.nspname = 'predictions' and t.relkind = 'p' order by 1
        """,
        {"d": as_of},
    ).fetchall()
    for table, newest in rows:
        late = (as_of - newest).days if newest else None
        detail = f"newest as_of is {newest}" if newest else "never published"
        yield Finding("days_behind", f"predictions.{table}", late, 0, late == 0, "critical", detail)


def volume(conn: psycopg.Connection, as_of: date) -> Iterator[Finding]:
    """Rows in of the day against the same weekday of the last eight weeks: warning."""
    rows = conn.execute(
        """
        select t.source || '.' || t.entity, t.n_in, avg(h.n_in)::float8, coalesce(stddev_samp(h.n_in), 0)::float8,
               count(h.n_in)
        from ops.load_audit t
        left join ops.load_audit h on h.source = t.source and h.entity = t.entity
          and h.partition_on < t.partition_on and h.partition_on >= t.partition_on - 56
          and extract(isodow from h.partition_on) = extract(isodow from t.partition_on)
        where t.partition_on = %s group by 1, 2 order by 1
        """,
        (as_of,),
    ).fetchall()
    for subject, n_in, mean, deviation, n_days in rows:
        if n_days < 4:
            continue
        z = abs(n_in - mean) / max(deviation, mean**0.5, 1.0)
        yield Finding("volume_z", subject, round(z, 2), VOLUME_Z, z <= VOLUME_Z, "warning", f"{n_in} rows in")


def quarantine(conn: psycopg.Connection, as_of: date) -> Iterator[Finding]:
    """Share of an entity's day in quarantine; information below the gate's threshold."""
    rows = conn.execute(
        "select source || '.' || entity, n_quarantined::float8 / n_in from ops.load_audit "
        "where partition_on = %s and n_quarantined > 0 order by 1",
        (as_of,),
    ).fetchall()
    for subject, share in rows:
        yield Finding("quarantine_share", subject, round(share, 5), None, True, "info")


def forecast_against_actual(conn: psycopg.Connection, as_of: date) -> Iterator[Finding]:
    """WAPE and coverage of the last 28 days' one-week-ahead forecasts, against net units sold: warning.

    Against the sales as they are known now: a rerun of an old day sees later cancellations.
    """
    if conn.execute("select to_regclass('published.fact_order_item')").fetchone() == (None,):
        return
    row = conn.execute(
        """
        with forecast as (
          select marketplace, product_id, forecast_on, p10, p50, p90 from predictions.demand_forecast
          where forecast_on <= %(d)s and forecast_on > %(d)s - 28 and forecast_on - as_of between 1 and 7
        ), actual as (
          select i.marketplace, i.product_id, i.ordered_on, sum(i.quantity) as units
          from published.fact_order_item i join published.fact_order o using (marketplace, order_id)
          where o.status not in ('canceled', 'unavailable', 'returned')
            and i.ordered_on <= %(d)s and i.ordered_on > %(d)s - 28
          group by 1, 2, 3
        )
        select count(*), sum(abs(coalesce(units, 0) - p50)) / nullif(sum(coalesce(units, 0)), 0),
               avg((coalesce(units, 0) between p10 and p90)::int)
        from forecast left join actual a on a.marketplace = forecast.marketplace
          and a.product_id = forecast.product_id and a.ordered_on = forecast_on
        """,
        {"d": as_of},
    ).fetchone()
    if not row or not row[0]:
        return
    n_rows, wape, coverage = row
    if wape is not None:
        yield Finding("forecast_wape", "demand_forecast", float(wape), None, True, "info", f"{n_rows} SKU-days")
    low, high = COVERAGE_RANGE
    yield Finding(
        "forecast_coverage", "demand_forecast", float(coverage), low, low <= coverage <= high, "warning",
        f"share of {n_rows} SKU-days within [p10, p90]; meant to be 0.8",
    )  # fmt: skip


def score_drift(conn: psycopg.Connection, as_of: date) -> Iterator[Finding]:
    """Shift of the mean churn probability since the night before: warning."""
    row = conn.execute(
        """
        select avg(churn_probability) filter (where as_of = %(d)s),
               avg(churn_probability) filter (where as_of = (select max(as_of) from predictions.churn_score
                                                              where as_of < %(d)s))
        from predictions.churn_score where as_of <= %(d)s and as_of >= %(d)s - 31
        """,
        {"d": as_of},
    ).fetchone()
    if row and row[0] is not None and row[1] is not None:
        shift = abs(row[0] - row[1])
        yield Finding(
            "score_mean_shift", "churn_score", shift, DRIFT_SHIFT, shift <= DRIFT_SHIFT, "warning",
            f"mean {row[0]:.3f}, the night before {row[1]:.3f}",
        )  # fmt: skip


def warned_rules(conn: psycopg.Connection, as_of: date) -> Iterator[Finding]:
    """Rules of the gates and tests of dbt that broke without stopping the night: warning, with where the rows are."""
    rows = conn.execute(
        "select gate, target, rule, n_failed, observed ->> 'rows' from ops.quality_result "
        "where as_of = %s and severity = 'warning' and not is_passed order by 1, 2, 3",
        (as_of,),
    ).fetchall()
    for gate, target, rule, n_failed, where in rows:
        detail = f"rows: select * from {where}" if where else ""
        yield Finding("rule_broken", f"{gate}.{target}.{rule}", n_failed, 0, False, "warning", detail)


CHECKS = (freshness, volume, quarantine, forecast_against_actual, score_drift, warned_rules)


def check_night(as_of: date) -> list[Finding]:
    """Run every check as of the day and record the findings. Role: publisher."""
    with connect("publisher") as conn:
        findings = [finding for check in CHECKS for finding in check(conn, as_of)]
        conn.execute("delete from ops.monitor_result where as_of = %s", (as_of,))
        with conn.cursor() as cursor:
            cursor.executemany(
                "insert into ops.monitor_result "
                "(as_of, check_name, subject, value, threshold, is_ok, severity, detail) "
                "values (%s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (as_of, f.check_name, f.subject, f.value, f.threshold, f.is_ok, f.severity, f.detail)
                    for f in findings
                ],
            )
    return findings


def main() -> None:
    """Print what was found; exit 1 when something critical is not well."""
    parser = argparse.ArgumentParser(description="Check the night")
    parser.add_argument("--as-of", type=parse_day, required=True)
    args = parser.parse_args()
    try:
        findings = check_night(args.as_of)
    except psycopg.Error as error:
        sys.exit(f"the night of {args.as_of} cannot be checked: {error}")
    for f in findings:
        mark = "ok  " if f.is_ok else f.severity.upper()
        value = "" if f.value is None else f" {f.value:.4g}"
        print(f"{mark} {f.check_name} {f.subject}:{value} {f.detail}".rstrip())
    failed = [f for f in findings if not f.is_ok and f.severity == "critical"]
    if failed:
        sys.exit("critical: " + "; ".join(f"{f.subject} {f.detail}" for f in failed))
    print(f"{len(findings)} checks as of {args.as_of}, none critical")


if __name__ == "__main__":
    main()
