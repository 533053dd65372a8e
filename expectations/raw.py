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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from expectations._gx import N_EXAMPLES, Rule, Verdict, gxe, validate
from include.dates import days
from include.ingest import bronze, drift
from include.ingest.arguments import add_range, check_range
from include.ingest.connectors import connector_class
from include.ingest.load import VERDICT, refuse_other
from include.ingest.quarantine import MENDED, ORIGINAL, Overlay, broken_columns, payload_columns, payload_of, restore
from include.ingest.sources import Column, Entity, Source, load_source
from include.ingest.tables import LINE_PARSES, landed, lock
from include.ingest.types import parse
from include.ops import Check, run_id
from include.settings import settings
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect

N_MESSAGES = 10


def typed(entity: Entity, rows: pa.Table, suite: Sequence[Rule]) -> pd.DataFrame:
    """``rows`` (strings) with typed columns, as the rules of ``suite`` see them; what none of them names is left out.

    ``<column> as landed`` is the string, ``<column> is there`` whether there is one, ``<column> parses`` whether it
    could be read.
    """
    arguments = [rule.expectation.configuration.kwargs for rule in suite]
    named = repr(arguments)
    # A condition is a text that may name any column.
    is_any = any(one.get("row_condition") for one in arguments)

    def is_named(column: str) -> bool:
        return is_any or repr(column) in named

    frame: dict[str, pd.Series | np.ndarray] = {}
    for name, column in entity.columns.items():
        if is_named(f"{name} is there"):
            frame[f"{name} is there"] = rows[name].is_valid().to_numpy()
        if is_named(f"{name} as landed"):
            frame[f"{name} as landed"] = rows[name].to_pandas()
        if is_named(name) or is_named(f"{name} parses"):
            frame[name], frame[f"{name} parses"] = parse(rows[name], column.type)
    return pd.DataFrame(frame, index=range(rows.num_rows))


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
        is_there = gxe.ExpectColumnValuesToBeInSet(column=f"{name} is there", value_set=[True])
        made.append(Rule(f"{name}_is_present", column.severity, is_there))
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


def _rules_of_tombstones(entity: Entity) -> set[str]:
    """What a deleted row must keep: its key, and nothing that Postgres would refuse. The rest may be missing."""
    keys = {rule.name for name in entity.key for rule in _column_rules(name, entity.columns[name])}
    return keys | {f"{name}_is_{column.type.split('(')[0]}" for name, column in entity.columns.items()}


@dataclass(frozen=True)
class Aside:
    """The rows of a piece that broke a critical rule."""

    rows: pa.Table
    broken_rules: list[list[str]]
    """For each row the names of the critical rules that it broke, the first one first."""


class Tally:
    """What an entity's days add up to, piece by piece: memory is bounded by the piece, not by the days."""

    def __init__(self, source: str, name: str, entity: Entity, range_of_days: Sequence[date]) -> None:
        self.target = f"{source}.{name}"
        self.entity = entity
        self.days = range_of_days
        self.n_rows = np.zeros(len(range_of_days), "int64")
        self.n_bad = np.zeros(len(range_of_days), "int64")
        self.n_failed: dict[str, np.ndarray] = {}
        self.is_critical: dict[str, bool] = {}
        self.first: dict[tuple[str, int], list[str]] = defaultdict(list)
        """(rule, number of the day) -> the first rows that broke it, as file:line; ``VERDICT``: any critical rule."""
        self.unjudged: dict[str, Check] = {}

    def judge(self, rows: pa.Table, more: Mapping[str, np.ndarray] | None = None) -> Aside:
        """Judge rows by the entity's rules; ``more`` are further critical rules with the positions that break them."""
        is_row = rows["_error"].is_null().to_numpy()
        at = np.flatnonzero(is_row)
        is_deleted, kept = pc.fill_null(rows["_deleted"], False).to_numpy(), _rules_of_tombstones(self.entity)
        # Line parsing counts as a rule like the others, the first one.
        by_rule: dict[str, tuple[bool, np.ndarray]] = {LINE_PARSES: (True, np.flatnonzero(~is_row))}
        by_rule |= {rule: (True, positions) for rule, positions in (more or {}).items()}
        by_rule |= {rule: (True, positions) for rule, positions in _unstorable(self.entity, rows).items()}
        verdicts = _verdicts(self.entity, rows.filter(is_row), self.target, self.days[-1]) if len(at) else []
        for rule, verdict in zip(rules(self.entity), verdicts, strict=False):
            broken = at[verdict.rows]
            if is_deleted.any() and rule.name not in kept:
                broken = broken[~is_deleted[broken]]
            by_rule[rule.name] = (rule.severity == "critical", broken)
            # A rule that breaks without naming a row is about the batch: it must not pass for want of rows.
            if "error" in verdict.check.observed or (not verdict.check.is_passed and not len(verdict.rows)):
                self.unjudged[rule.name] = verdict.check
        return self.add(rows, by_rule)

    def sum_up(self, rows: pa.Table) -> Aside:
        """Count rows of ``bronze.marked`` by their marks; what was mended since is judged."""
        by_rule = {LINE_PARSES: (True, np.flatnonzero(rows["_error"].is_valid().to_numpy()))}
        by_rule |= {rule.name: (rule.severity == "critical", np.array([], "int64")) for rule in rules(self.entity)}
        is_mended = rows[ORIGINAL].is_valid().to_numpy()
        for column, is_critical in ((bronze.RULES, True), (bronze.WARNED, False)):
            marks = rows[column].combine_chunks()
            of, names = pc.list_parent_indices(marks).to_numpy(), pc.list_flatten(marks)
            for name in names.unique().to_pylist():
                broken = of[pc.equal(names, name).to_numpy(zero_copy_only=False)]
                by_rule[name] = (is_critical, broken[~is_mended[broken]])
        aside = self.add(rows.filter(pa.array(~is_mended)), _renumbered(by_rule, ~is_mended))
        if not is_mended.any():
            return aside
        again = self.judge(rows.filter(pa.array(is_mended)))
        return Aside(pa.concat_tables([aside.rows, again.rows]), [*aside.broken_rules, *again.broken_rules])

    def add(self, rows: pa.Table, by_rule: Mapping[str, tuple[bool, np.ndarray]]) -> Aside:
        """Count rows of which is known what they broke: rule -> (is it critical, positions in ``rows``)."""
        day_of = (rows["partition_on"].to_numpy().astype("datetime64[D]") - np.datetime64(self.days[0])).astype("int64")
        self.n_rows += np.bincount(day_of, minlength=len(self.days))
        is_bad = np.zeros(len(rows), bool)
        for rule, (is_critical, broken) in by_rule.items():
            self.is_critical[rule] = is_critical
            n_failed = self.n_failed.setdefault(rule, np.zeros(len(self.days), "int64"))
            n_failed += np.bincount(day_of[broken], minlength=len(self.days))
            self._remember(rule, rows, day_of, broken)
            if is_critical:
                is_bad[broken] = True
        bad_at = np.flatnonzero(is_bad)
        self.n_bad += np.bincount(day_of[bad_at], minlength=len(self.days))
        self._remember(VERDICT, rows, day_of, bad_at)
        broken_rules: dict[int, list[str]] = {position: [] for position in bad_at.tolist()}
        for rule, (is_critical, broken) in by_rule.items():
            for position in broken.tolist() if is_critical else ():
                broken_rules[position].append(rule)
        return Aside(rows.take(pa.array(bad_at)), list(broken_rules.values()))

    def _remember(self, rule: str, rows: pa.Table, day_of: np.ndarray, positions: np.ndarray) -> None:
        for index in np.unique(day_of[positions]).tolist():
            seen = self.first[rule, index]
            if len(seen) < N_EXAMPLES:
                here = positions[day_of[positions] == index][: N_EXAMPLES - len(seen)]
                some = rows.select(["_file", "_line"]).take(pa.array(here)).to_pylist()
                seen += [f"{one['_file']}:{one['_line']}" for one in some]

    def checks(self, batches: Mapping[date, str]) -> list[Check]:
        """A check per rule and day with rows, and the verdict on every day, which names the batch that it is about.

        A row rule is recorded as a warning: what it breaks is set aside and somebody should look. The batch is
        blocked by the share alone.
        """
        found = []
        for index, day in enumerate(self.days):
            n = int(self.n_rows[index])
            found.append(self._verdict(index, day, batches.get(day, bronze.NOTHING)))
            if self.entity.min_rows:
                least = self.entity.min_rows
                found.append(
                    Check(
                        "raw", self.target, day, "rows_are_enough", least.severity, n >= least.n, n,
                        max(least.n - n, 0), {"observed": n, "least": least.n},
                    )
                )  # fmt: skip
            if not n:
                continue
            for rule, of_days in self.n_failed.items():
                n_bad = int(of_days[index])
                seen: dict = {"on_break": "quarantine" if self.is_critical[rule] else "record"}
                if n_bad:
                    seen["first"] = self.first[rule, index]
                found.append(Check("raw", self.target, day, rule, "warning", n_bad == 0, n, n_bad, seen))
            for one in self.unjudged.values():
                rule = f"{one.rule}_can_be_judged"
                found.append(Check("raw", self.target, day, rule, "critical", False, n, n, one.observed))
        return found

    def _verdict(self, index: int, day: date, batch: str) -> Check:
        n, n_bad = int(self.n_rows[index]), int(self.n_bad[index])
        own = self.entity.quarantine_threshold
        threshold = settings().quarantine_threshold if own is None else own
        share = n_bad / n if n else 0.0
        observed: dict = {"share": round(share, 4), "threshold": threshold, "batch": batch}
        if n_bad:
            counts = {
                rule: int(of_days[index])
                for rule, of_days in self.n_failed.items()
                if self.is_critical[rule] and of_days[index]
            }
            observed["rules"] = dict(sorted(counts.items(), key=lambda one: -one[1]))
            observed["first"] = self.first[VERDICT, index]
        return Check("raw", self.target, day, VERDICT, "critical", share <= threshold, n, n_bad, observed)


def _unstorable(entity: Entity, rows: pa.Table) -> dict[str, np.ndarray]:
    """Rule -> positions of the rows with a NUL in a column of text, evolved or not, which Postgres would refuse."""
    found = {}
    for name in payload_columns(rows.column_names):
        if name not in entity.columns or entity.columns[name].type == "text":
            has_nul = pc.fill_null(pc.match_substring(rows[name], "\0"), False)
            if pc.any(has_nul).as_py():
                found[f"{name}_is_text"] = np.flatnonzero(has_nul.to_numpy())
    return found


def _renumbered(by_rule: Mapping[str, tuple[bool, np.ndarray]], kept: np.ndarray) -> dict[str, tuple[bool, np.ndarray]]:
    """Positions among the rows that are kept, all of which they are."""
    number = np.cumsum(kept) - 1
    return {rule: (is_critical, number[positions]) for rule, (is_critical, positions) in by_rule.items()}


def _verdicts(entity: Entity, rows: pa.Table, target: str, as_of: date) -> list[Verdict]:
    suite = rules(entity)
    return validate(typed(entity, rows, suite), suite, gate="raw", target=target, as_of=as_of)


def _forget(conn: psycopg.Connection, source: str, name: str, *span: date) -> None:
    """Empty the quarantine of the days. What land put there (lines that are no rows) stays as it is."""
    table = sql.Identifier("quarantine", name)
    conn.execute(
        sql.SQL("delete from {} where source = %s and partition_on between %s and %s and rule <> %s").format(table),
        (source, *span, LINE_PARSES),
    )


def _set_aside(
    conn: psycopg.Connection, source: str, name: str, entity: Entity, aside: Aside, is_mended: bool = False
) -> None:
    """Add rows to the quarantine; mended ones that keep the rules are entered too, and not counted."""
    if not aside.rows.num_rows:
        return
    table = sql.Identifier("quarantine", name)
    # The text of a line that is no row is there since it was landed.
    payloads = [
        None if broken[:1] == [LINE_PARSES] else payload_of(row)
        for row, broken in zip(
            aside.rows.select(payload_columns(aside.rows.column_names)).to_pylist(), aside.broken_rules, strict=True
        )
    ]
    rows = pa.table(
        {
            "source": [source] * len(payloads),
            "file": aside.rows["_file"],
            "line": aside.rows["_line"],
            "rule": [MENDED if is_mended else broken[0] for broken in aside.broken_rules],
            "payload": pa.array(payloads, pa.string()),
            "partition_on": aside.rows["partition_on"],
            "rules": [_array(broken) for broken in aside.broken_rules],
            "columns": [_array(broken_columns(entity, broken)) for broken in aside.broken_rules],
            "original": aside.rows[ORIGINAL] if ORIGINAL in aside.rows.column_names else pa.nulls(len(payloads)),
            "is_mended": [is_mended] * len(payloads),
        }
    )
    conn.execute(sql.SQL("create temp table aside (like {} including defaults) on commit drop").format(table))
    copy_table(conn, "aside", rows)
    names = sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    conn.execute(
        sql.SQL(
            """insert into {table} ({names}) select {names} from aside
               on conflict (source, partition_on, file, line) do update
               set rule = excluded.rule, rules = excluded.rules, columns = excluded.columns,
                   payload = excluded.payload, original = excluded.original, is_mended = excluded.is_mended
               where excluded.payload is not null"""
        ).format(table=table, names=names)
    )
    conn.execute("drop table aside")


def _array(texts: Sequence[str]) -> str:
    return "{" + ",".join(texts) + "}"


def _mended(rows: pa.Table, aside: Aside) -> Aside:
    """The mended rows of a piece that keep the rules."""
    place = ["partition_on", "_file", "_line"]
    is_bad = {tuple(row.values()) for row in aside.rows.select(place).to_pylist()}
    found = rows.filter(pc.is_valid(rows[ORIGINAL]))
    is_good = [tuple(row.values()) not in is_bad for row in found.select(place).to_pylist()]
    good = found.filter(pa.array(is_good, pa.bool_()))
    return Aside(good, [[] for _ in range(good.num_rows)])


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
    is_stream = connector_class(source.type).lands_in_spark
    with connect("loader") as conn:
        lock(conn, source)
        there = landed(conn, source, range_of_days)
        for name, entity in source.entities.items():
            started = time.monotonic()
            refuse_other(source, name, there)
            tally = Tally(source.source, name, entity, range_of_days)
            n_aside = 0
            drifts = drift.of_days(conn, source, name, first, last)
            also = sorted({one for of in drifts.values() for one in drift.held(of)})
            restore(conn, source.source, name, first, last)
            overlay = Overlay.of(conn, source.source, name, first, last)
            _forget(conn, source.source, name, first, last)
            if is_stream:
                pieces = bronze.marked(source.source, name, entity, first, last, files=overlay.files)
            else:
                pieces = bronze.pieces(source.source, name, entity, first, last, also=also)
            for rows in pieces:
                rows = overlay.laid(entity, rows)
                aside = tally.sum_up(rows) if is_stream else tally.judge(rows, drift.unknown_rows(rows, drifts))
                _set_aside(conn, source.source, name, entity, aside)
                _set_aside(conn, source.source, name, entity, _mended(rows, aside), is_mended=True)
                n_aside += len(aside.broken_rules)
            if is_stream:
                # The others kept every rule as they landed, and were counted there.
                tally.n_rows = np.array([there[name, day][0] for day in range_of_days])
            checks = tally.checks({day: there[name, day][1] for day in range_of_days})
            checks += _more_checks(tally, drifts, overlay)
            _record(conn, tally.target, checks, first, last)
            stopped += [one for one in checks if one.severity == "critical" and not one.is_passed]
            print(
                f"{tally.target}: {len(range_of_days)} days, {tally.n_rows.sum()} rows, "
                f"{n_aside} quarantined, {time.monotonic() - started:.1f} s"
            )
    return stopped


def _more_checks(tally: Tally, drifts: Mapping[date, drift.Drift], overlay: Overlay) -> list[Check]:
    """About columns that the YAML does not know, and mended rows that found no row to stand in for."""
    found = [
        drift.check(tally.target, day, drifts[day], tally.entity, int(n))
        for day, n in zip(tally.days, tally.n_rows, strict=True)
        if day in drifts
    ] + [overlay.check(tally.target, day) for day in tally.days]
    return [one for one in found if one is not None]


def message(check: Check) -> str:
    """Why a batch stopped, in one line: entity, day, share, rules, first bad rows."""
    if check.rule == drift.RULE:
        return drift.message(check)
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
