"""``source check``: try a source without loading it, and say what was found. Nothing is written, anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from include.ingest.connectors import Batch, Connector, Found, SourceError, connector
from include.ingest.extract import Extract, extracts
from include.ingest.infer import snake
from include.ingest.pseudonym import mask_emails
from include.ingest.scaffold import private
from include.ingest.sources import Column, Entity, Source
from include.secrets import nothing_written

HOLDS = {
    "text": {"text", "integer", "bigint", "numeric(18,4)", "timestamptz", "date", "boolean"},
    "bigint": {"integer", "bigint"},
    "numeric(18,4)": {"integer", "bigint", "numeric(18,4)"},
    "timestamptz": {"timestamptz", "date"},
    # Databases without a boolean type keep 0 and 1.
    "boolean": {"boolean", "integer"},
}
"""Type in the YAML -> types in the source that it holds without doubt, beside its own."""

N_SHOWN = 60
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Rule:
    """What a rule of the gate found on the day."""

    name: str
    n_failed: int
    is_critical: bool
    """Its rows would be quarantined."""
    example: str
    """Where the first one is, and what it holds."""


@dataclass(frozen=True)
class Verdict:
    """The gate's on an entity's day."""

    rules: list[Rule]
    n_quarantined: int
    stops: list[str]
    """Why the batch would stop; empty where it would go on."""


Judge = Callable[[Source, str, Entity, Extract, date], Verdict]
"""The raw gate (``expectations.check``), which is above this layer."""


@dataclass(frozen=True)
class Line:
    """A column, or one that the source lacks or has beyond the YAML."""

    state: Literal["ok", "missing", "extra", "doubt"]
    column: str
    of: str
    """Its name in the source."""
    type: str
    said: str = ""


@dataclass
class EntityReport:
    """What was found of an entity."""

    name: str
    lines: list[Line] = field(default_factory=list)
    n_rows: int | None = None
    """Rows of the day; None where they could not be read."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    verdict: Verdict | None = None


@dataclass
class Report:
    """What was found of a source."""

    source: Source
    as_of: date
    entities: list[EntityReport]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def all_problems(self) -> list[str]:
        """Every reason why the source cannot be loaded as it is."""
        return [*self.problems, *(text for one in self.entities for text in one.problems)]


def check(source: Source, as_of: date | None, data: Path | None, judge: Judge) -> Report:
    """Open the source, compare it with its YAML and judge the rows of one day.

    Without a day the last one that the source knows of, else its first, else yesterday. What is wrong with the
    source is in the report; only a bug raises.
    """
    day = as_of or datetime.now(UTC).date() - timedelta(days=1)
    report = Report(source, day, [EntityReport(name) for name in source.entities])
    with nothing_written():
        try:
            with connector(source, data) as reader:
                if as_of is None:
                    first, last = reader.span()
                    report.as_of = last or first or day
                found = _discovered(reader, report)
                for one in report.entities:
                    if (there := _columns_of(one.name, source.entities[one.name], reader, found)) is not None:
                        _compare(one, source.entities[one.name], there)
                report.notes += reader.findings()
                if reader.lands_in_spark:
                    report.notes.append("A stream: the beginning of the day's first file was tried.")
                _judge_day(reader, report, judge)
        except (SourceError, OSError) as error:
            report.problems.append(str(error))
        except psycopg.OperationalError as error:
            # Some ask it what was loaded already.
            reason = str(error).splitlines()[0]
            report.problems.append(f"the warehouse does not answer ({reason}): start it with ./emporium up")
    return report


def _discovered(reader: Connector, report: Report) -> dict[str, list[Found]]:
    if type(reader).discover is Connector.discover:
        report.notes.append(f"Type {reader.name} does not list columns: what is compared is what the day's rows have.")
        return {}
    return reader.discover()


def _columns_of(name: str, entity: Entity, reader: Connector, found: Mapping[str, list[Found]]) -> list[Found] | None:
    """What discovery says of the entity, under its own name or that of the table it reads; None: nothing."""
    reads = {table: reader.proposed(table) for table in found}
    of_table = (found[table] for table, read in reads.items() if read and read.items() <= entity.read.items())
    return found.get(name) or next(of_table, None)


def _compare(report: EntityReport, entity: Entity, found: list[Found]) -> None:
    there = {one.name: one for one in found}
    for name, of in entity.source_columns.items():
        column = entity.columns[name]
        if of not in there:
            if column.optional:
                report.lines.append(Line("ok", name, of, column.type, "not there, which `optional` allows"))
            else:
                report.lines.append(Line("missing", name, of, column.type, "the source has no such column"))
            continue
        one = there[of]
        said = shown(report.name, of, column, one.samples)
        if one.type not in ("", column.type) and one.type not in HOLDS.get(column.type, set()):
            report.lines.append(
                Line("doubt", name, of, column.type, f"the source says {one.type}" + f": {said}" * bool(said))
            )
        else:
            report.lines.append(Line("ok", name, of, column.type, said))
    for one in found:
        if one.name not in entity.source_columns.values() and one.name not in entity.ignore:
            report.lines.append(Line("extra", "", one.name, one.type, "name it, or list it under `ignore`"))
    if any(line.state == "extra" for line in report.lines):
        report.notes.append(
            "columns beyond the YAML are left where they are if they are there at the first landing; of one that "
            f"appears later the schema_policy says: {entity.schema_policy}"
        )
    if missing := [line.of for line in report.lines if line.state == "missing"]:
        report.problems.append(
            f"{report.name}: the source lacks {', '.join(missing)}: "
            "correct `from`, remove the column, or say `optional: true`"
        )


def shown(entity: str, of: str, column: Column, values: Sequence[str]) -> str:
    """Some values of a column, unless they are a person's or a secret; e-mail addresses are masked."""
    if column.pseudonym or private(snake(of), entity):
        return "not shown"
    return ", ".join(_cut(one) for one in mask_emails(pa.array(values, pa.string())).to_pylist())


def _cut(value: str) -> str:
    text = value.replace("\n", "\\n")
    return text if len(text) <= N_SHOWN else text[: N_SHOWN - 3] + "..."


# --- the rows of the day --------------------------------------------------------------------------


class _Watched:
    """A connector whose batches are looked at on their way, by a YAML that forgives a missing column."""

    def __init__(self, reader: Connector) -> None:
        self.reader = reader
        self.name = reader.name
        self.columns: dict[str, dict[str, None]] = {}
        entities = {
            name: entity.model_copy(
                update={
                    "columns": {one: of.model_copy(update={"optional": True}) for one, of in entity.columns.items()}
                }
            )
            for name, entity in reader.source.entities.items()
        }
        self.source = reader.source.model_copy(update={"entities": entities})

    def read(self, first: date, last: date) -> Iterator[Batch]:
        for batch in self.reader.look(last):
            seen = self.columns.setdefault(batch.entity, {})
            rows = batch.rows
            names = rows.column_names if isinstance(rows, pa.Table) else [name for row in rows for name in row]
            seen.update(dict.fromkeys([*names, *(batch.columns or ())]))
            yield batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)


def _judge_day(reader: Connector, report: Report, judge: Judge) -> None:
    watched = _Watched(reader)
    by_name = {one.name: one for one in report.entities}
    for found in extracts(cast(Connector, watched), report.as_of, report.as_of):
        one, entity = by_name[found.entity], report.source.entities[found.entity]
        columns = watched.columns.get(found.entity, {})
        if not one.lines and columns:
            _compare(one, entity, [Found(name, "") for name in columns])
        one.n_rows = found.rows.num_rows
        is_row = found.rows.filter(pc.is_null(found.rows["_error"]))
        _look_at_keys(one, entity, is_row)
        _look_at_nulls(one, entity, is_row)
        one.verdict = judge(report.source, found.entity, entity, found, report.as_of)
        one.problems += one.verdict.stops
    if not any(one.n_rows for one in report.entities):
        report.notes.append(f"No row became known on {report.as_of}: try another day with --as-of.")


def _look_at_keys(report: EntityReport, entity: Entity, rows: pa.Table) -> None:
    if not rows.num_rows:
        return
    counts = Counter(zip(*(rows[name].to_pylist() for name in entity.key), strict=True))
    n_twice = sum(n > 1 for n in counts.values())
    key = ", ".join(entity.key)
    report.notes.append(
        f"key ({key}) comes more than once for {n_twice} of {len(counts)}: the newest version of the day stays"
        if n_twice
        else f"key ({key}) is unique"
    )


def _look_at_nulls(report: EntityReport, entity: Entity, rows: pa.Table) -> None:
    counts = {name: rows[name].null_count for name, column in entity.columns.items() if column.required}
    if nulls := {name: n for name, n in counts.items() if n}:
        report.notes.append("required and empty: " + ", ".join(f"{name} in {n}" for name, n in nulls.items()))


# --- for people -----------------------------------------------------------------------------------

STYLES = {"ok": "green", "missing": "red", "extra": "yellow", "doubt": "yellow"}


def show(console: Console, report: Report) -> None:
    """Print a report: a table an entity, what the gate would do, and the verdict."""
    source = report.source
    console.print(f"{source.source}: type {source.type}, as of {report.as_of}; nothing is written", markup=False)
    for one in report.entities:
        entity = source.entities[one.name]
        cursor = f", cursor {entity.cursor}" if entity.cursor else ""
        table = Table(title=f"{one.name}: key {', '.join(entity.key)}{cursor}", title_justify="left")
        for header in ("", "column", "in the source", "type", "found"):
            table.add_column(header, overflow="fold")
        for line in one.lines:
            table.add_row(
                f"[{STYLES[line.state]}]{line.state}[/]", *map(escape, (line.column, line.of, line.type, line.said))
            )
        console.print(table)
        for text in _sentences(one):
            console.print(f"  {text}", markup=False)
    for text in report.notes:
        console.print(text, markup=False)
    if problems := report.all_problems:
        for text in problems:
            console.print(f"PROBLEM {text}", markup=False, style="red")
        console.print(f"{source.source} cannot be loaded as it is: {len(problems)} to mend.", markup=False)
    else:
        console.print(f"{source.source} can be loaded.", markup=False)


def _sentences(one: EntityReport) -> Iterator[str]:
    if one.n_rows is None:
        yield "rows: not read"
        return
    quarantined = one.verdict.n_quarantined if one.verdict else 0
    yield f"rows: {one.n_rows}, of which {quarantined} would be quarantined"
    yield from one.notes
    for rule in one.verdict.rules if one.verdict else []:
        does = "quarantines" if rule.is_critical else "warns of"
        yield f"{rule.name} {does} {rule.n_failed}, first {rule.example}"
