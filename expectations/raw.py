"""The raw gate: bronze partitions against the rules of their source's YAML.

``python -m expectations.raw --source S [--source S2 ...] --as-of D [--from D0]``

A row that breaks a critical rule goes to ``quarantine.<entity>`` and the rest lands. A day of an entity with more
than ``EMPORIUM_QUARANTINE_THRESHOLD`` of its rows in quarantine stops the batch: exit 1, and load refuses the source.
Every rule's count of every day is in ``ops.quality_result``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
from psycopg import sql

from expectations._gx import N_EXAMPLES, Rule, Verdict, gxe, validate
from include.dates import days
from include.ingest import bronze
from include.ingest.arguments import add_range, check_range
from include.ingest.load import VERDICT
from include.ingest.sources import Column, Entity, Source, load_source
from include.ingest.tables import LINE_PARSES, landed, lock
from include.ingest.types import parse
from include.ops import Check, run_id
from include.settings import settings
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect

N_MESSAGES = 10


def typed(entity: Entity, rows: pa.Table) -> pd.DataFrame:
    """``rows`` (strings) with typed columns, as rules see them.

    ``<column> as landed`` is the string, ``<column> parses`` whether it could be read; for text there is only the
    column itself.
    """
    frame: dict[str, pd.Series | np.ndarray] = {}
    for name, column in entity.columns.items():
        frame[name], parses = parse(rows[name], column.type)
        if column.type != "text":
            frame[f"{name} as landed"] = rows[name].to_pandas()
            frame[f"{name} parses"] = parses
    return pd.DataFrame(frame)


def rules(entity: Entity) -> list[Rule]:
    """The rules of an entity's rows: of its columns first, then its own."""
    found = [rule for name, column in entity.columns.items() for rule in _column_rules(name, column)]
    for one in entity.rules:
        try:
            expectation = getattr(gxe, one.expectation)(**one.arguments)
        except Exception as error:
            raise ValueError(f"Rule {one.name}: {one.expectation} does not take these arguments: {error}") from error
        found.append(Rule(one.name, one.severity, expectation))
    return found


def _column_rules(name: str, column: Column) -> list[Rule]:
    is_text = column.type == "text"
    made = []
    if column.required:
        landed_as = name if is_text else f"{name} as landed"
        made.append(Rule(f"{name}_is_present", column.severity, gxe.ExpectColumnValuesToNotBeNull(column=landed_as)))
    if not is_text:
        # Always critical: Postgres would refuse the value.
        kind = column.type.split("(")[0]
        parses = gxe.ExpectColumnValuesToBeInSet(column=f"{name} parses", value_set=[True])
        made.append(Rule(f"{name}_is_{kind}", "critical", parses))
    if column.min is not None or column.max is not None:
        within = gxe.ExpectColumnValuesToBeBetween(column=name, min_value=column.min, max_value=column.max)
        made.append(Rule(f"{name}_is_in_range", column.severity, within))
    if column.values:
        known = gxe.ExpectColumnValuesToBeInSet(column=name, value_set=column.values)
        made.append(Rule(f"{name}_is_known", column.severity, known))
    if column.pattern:
        matches = gxe.ExpectColumnValuesToMatchRegex(column=name, regex=column.pattern)
        made.append(Rule(f"{name}_matches", column.severity, matches))
    return made


@dataclass(frozen=True)
class Judged:
    """The verdicts on an entity: checks of every day, and the rows to set aside."""

    checks: list[Check]
    bad: pa.Table
    broken_rules: list[list[str]]
    """For each row of ``bad`` the names of the critical rules that it broke, the first one first."""


def judge(
    source: str, name: str, entity: Entity, rows: pa.Table, range_of_days: Sequence[date], files: dict[date, str]
) -> Judged:
    """Check an entity's bronze rows, all days at once; shares are per day. Touches no database."""
    target = f"{source}.{name}"
    n_days = len(range_of_days)
    first = range_of_days[0]
    day_of = (rows["partition_on"].to_numpy().astype("datetime64[D]") - np.datetime64(first)).astype("int64")
    n_rows = np.bincount(day_of, minlength=n_days)

    is_row = rows["_error"].is_null().to_numpy()
    at = np.flatnonzero(is_row)
    verdicts = _verdicts(entity, rows.take(pa.array(at)), target, range_of_days[-1]) if len(at) else []
    # Line parsing counts as a rule like the others, the first one.
    by_rule: dict[str, tuple[bool, np.ndarray]] = {LINE_PARSES: (True, np.flatnonzero(~is_row))}
    unjudged = []
    for rule, verdict in zip(rules(entity), verdicts, strict=False):
        by_rule[rule.name] = (rule.severity == "critical", at[verdict.rows])
        # A rule that breaks without naming a row is about the batch: it must not pass for want of rows.
        if "error" in verdict.check.observed or (not verdict.check.is_passed and not len(verdict.rows)):
            unjudged.append(verdict.check)

    is_bad = np.zeros(len(rows), bool)
    for is_critical, broken in by_rule.values():
        if is_critical:
            is_bad[broken] = True
    bad_at = np.flatnonzero(is_bad)
    broken_rules: dict[int, list[str]] = {position: [] for position in bad_at.tolist()}
    for rule_name, (is_critical, broken) in by_rule.items():
        if is_critical:
            for position in broken.tolist():
                broken_rules[position].append(rule_name)

    checks = _checks(target, range_of_days, rows, day_of, n_rows, by_rule, bad_at, files, entity)
    checks += [
        Check("raw", target, day, f"{one.rule}_can_be_judged", "critical", False, int(n), int(n), one.observed)
        for one in unjudged
        for day, n in zip(range_of_days, n_rows, strict=True)
        if n
    ]
    return Judged(checks, rows.take(pa.array(bad_at)), list(broken_rules.values()))


def _verdicts(entity: Entity, rows: pa.Table, target: str, as_of: date) -> list[Verdict]:
    return validate(typed(entity, rows), rules(entity), gate="raw", target=target, as_of=as_of)


def _checks(
    target: str,
    range_of_days: Sequence[date],
    rows: pa.Table,
    day_of: np.ndarray,
    n_rows: np.ndarray,
    by_rule: dict[str, tuple[bool, np.ndarray]],
    bad_at: np.ndarray,
    files: dict[date, str],
    entity: Entity,
) -> list[Check]:
    """A check per rule and day with rows, and the verdict on every day.

    A row rule is recorded as a warning: what it breaks is set aside and somebody should look. The batch is
    blocked by the share alone.
    """
    n_days = len(range_of_days)
    failed = {rule: np.bincount(day_of[broken], minlength=n_days) for rule, (_, broken) in by_rule.items()}
    n_bad = np.bincount(day_of[bad_at], minlength=n_days)
    threshold = settings().quarantine_threshold
    checks = []
    for index, day in enumerate(range_of_days):
        n = int(n_rows[index])
        share = n_bad[index] / n if n else 0.0
        observed = {"share": round(float(share), 4), "threshold": threshold, "files": files.get(day, bronze.NOTHING)}
        if n_bad[index]:
            counts = {rule: int(failed[rule][index]) for rule, (is_critical, _) in by_rule.items() if is_critical}
            observed["rules"] = dict(sorted(((k, v) for k, v in counts.items() if v), key=lambda kv: -kv[1]))
            observed["first"] = _places(rows, bad_at[day_of[bad_at] == index])
        is_fine = share <= threshold
        checks.append(Check("raw", target, day, VERDICT, "critical", bool(is_fine), n, int(n_bad[index]), observed))
        if entity.min_rows:
            least = entity.min_rows
            checks.append(
                Check(
                    "raw", target, day, "rows_are_enough", least.severity, n >= least.n, n, max(least.n - n, 0),
                    {"observed": n, "least": least.n},
                )
            )  # fmt: skip
        if not n:
            continue
        for rule, (is_critical, broken) in by_rule.items():
            n_failed = int(failed[rule][index])
            seen: dict = {"on_break": "quarantine" if is_critical else "record"}
            if n_failed:
                seen["first"] = _places(rows, broken[day_of[broken] == index])
            checks.append(Check("raw", target, day, rule, "warning", n_failed == 0, n, n_failed, seen))
    return checks


def _places(rows: pa.Table, positions: np.ndarray) -> list[str]:
    some = rows.select(["_file", "_line"]).take(pa.array(positions[:N_EXAMPLES]))
    return [f"{one['_file']}:{one['_line']}" for one in some.to_pylist()]


def _set_aside(conn: psycopg.Connection, source: str, name: str, entity: Entity, judged: Judged, *span: date) -> None:
    """Replace the quarantine of the days. What land put there (lines that are no rows) stays as it is."""
    table = sql.Identifier("quarantine", name)
    conn.execute(
        sql.SQL("delete from {} where source = %s and partition_on between %s and %s and rule <> %s").format(table),
        (source, *span, LINE_PARSES),
    )
    if not judged.broken_rules:
        return
    payloads = [
        None if broken[0] == LINE_PARSES else json.dumps(row, ensure_ascii=False)
        for row, broken in zip(judged.bad.select(list(entity.columns)).to_pylist(), judged.broken_rules, strict=True)
    ]
    rows = pa.table(
        {
            "source": [source] * len(payloads),
            "file": judged.bad["_file"],
            "line": judged.bad["_line"],
            "rule": [broken[0] for broken in judged.broken_rules],
            "payload": pa.array(payloads, pa.string()),
            "partition_on": judged.bad["partition_on"],
            "rules": ["{" + ",".join(broken) + "}" for broken in judged.broken_rules],
        }
    )
    conn.execute(sql.SQL("create temp table aside (like {}) on commit drop").format(table))
    conn.execute("alter table aside alter quarantined_at set default now()")
    copy_table(conn, "aside", rows)
    conn.execute(sql.SQL("insert into {} select * from aside on conflict do nothing").format(table))
    conn.execute("drop table aside")


def _record(conn: psycopg.Connection, target: str, checks: Iterable[Check], *span: date) -> None:
    """Replace the verdicts on the target's days, by COPY: a full load has tens of thousands."""
    conn.execute(
        "delete from ops.quality_result where gate = 'raw' and target = %s and as_of between %s and %s",
        (target, *span),
    )
    who = run_id()
    rows = [{"run_id": who, **asdict(one), "observed": json.dumps(one.observed)} for one in checks]
    copy_table(conn, "ops.quality_result", pa.Table.from_pylist(rows))


def gate(source: Source, first: date, last: date) -> list[Check]:
    """Judge all entities of a source on ``first``..``last``; returns the broken critical checks.

    ``RuntimeError`` where a day was not landed, or bronze is not what was landed.
    """
    range_of_days = list(days(first, last))
    stopped = []
    with connect("loader") as conn:
        lock(conn, source)
        there = landed(conn, source, range_of_days)
        for name, entity in source.entities.items():
            started = time.monotonic()
            files = bronze.fingerprints(source.source, name)
            for day in range_of_days:
                if there[name, day][1] != files.get(day, bronze.NOTHING):
                    raise RuntimeError(
                        f"Bronze of {source.source}.{name} of {day} is not what was landed: "
                        f"run python -m include.ingest land --source {source.source} --as-of {day} again."
                    )
            rows = bronze.read(source.source, name, entity, first, last)
            judged = judge(source.source, name, entity, rows, range_of_days, files)
            _set_aside(conn, source.source, name, entity, judged, first, last)
            _record(conn, f"{source.source}.{name}", judged.checks, first, last)
            stopped += [one for one in judged.checks if one.severity == "critical" and not one.is_passed]
            print(
                f"{source.source}.{name}: {len(range_of_days)} days, {len(rows)} rows, "
                f"{len(judged.broken_rules)} quarantined, {time.monotonic() - started:.1f} s"
            )
    return stopped


def message(check: Check) -> str:
    """Why a batch stopped, in one line: entity, day, share, rules, first bad rows."""
    if check.rule != VERDICT:
        return f"{check.target} of {check.as_of}: {check.rule} is broken: {check.observed}"
    counts = ", ".join(f"{rule} {n}" for rule, n in check.observed["rules"].items())
    return (
        f"{check.target} of {check.as_of}: {check.n_failed} of {check.n_checked} rows ({check.observed['share']:.1%}) "
        f"break a rule, more than {check.observed['threshold']:.1%}: {counts}; "
        f"first: {', '.join(check.observed['first'])}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the gate; 1 when a batch must stop, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m expectations.raw", description=__doc__.splitlines()[0])
    add_range(parser)
    args = parser.parse_args(argv)
    check_range(parser, args)
    try:
        stopped = [check for name in args.source for check in gate(load_source(name), args.first, args.as_of)]
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    except psycopg.OperationalError as error:
        print(f"The warehouse does not answer: {error}", file=sys.stderr)
        return 1
    for check in stopped[:N_MESSAGES]:
        print(message(check), file=sys.stderr)
    if len(stopped) > N_MESSAGES:
        print(f"... and {len(stopped) - N_MESSAGES} more; see ops.quality_result.", file=sys.stderr)
    return 1 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
