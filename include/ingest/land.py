"""Land: a source's rows of D0..D into bronze, each business day replaced as a whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from include.dates import days
from include.ingest import bronze, deletes, drift, late
from include.ingest.connectors import Connector, connector
from include.ingest.extract import Broken, Extract, extracts
from include.ingest.files import IN_COLUMN
from include.ingest.sources import Source
from include.ingest.tables import LINE_PARSES, lock
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect


@dataclass(frozen=True)
class Landed:
    """What a landing brought."""

    entity: str
    n_days: int
    n_rows: int
    n_broken: int
    seconds: float


def land(source: Source, first: date, last: date, data: Path | None = None) -> Iterator[Landed]:
    """Extract ``first``..``last`` and replace those days in bronze, entity by entity; yields what each brought.

    A long range goes in the chunks that the connector names, so that memory holds one of them. All entities of a
    chunk are read before the first is written, so a missing file leaves bronze as it was. A landing that is cut off
    is healed by landing again: until then its days count as not landed, or as landed with another batch.
    """
    with connector(source, data) as reader:
        newest = _newest_snapshots(reader)
        for begin, end in _cut(first, last, newest.values()):
            kept = {name for name, day in newest.items() if begin < day}
            for chunk in reader.chunks(begin, end):
                yield from _land(reader, *chunk, kept)


def _newest_snapshots(reader: Connector) -> dict[str, date]:
    """Entity -> the newest landed day, of those that can only be read as they are now."""
    names = [name for name in reader.source.entities if reader.is_snapshot(name)]
    if not names:
        return {}
    table = sql.Identifier(reader.source.raw_schema, "_landed")
    query = sql.SQL("select entity, max(partition_on) from {} where entity = any(%s) group by 1").format(table)
    with connect("loader") as conn:
        return dict(conn.execute(query, (names,)).fetchall())


def _cut(first: date, last: date, newest: Iterable[date]) -> Iterator[tuple[date, date]]:
    """The range, cut behind each newest snapshot that it overlaps: what is there now is of the first day after it."""
    for day in sorted(set(newest)):
        if first < day < last:
            yield first, day
            first = day + timedelta(days=1)
    yield first, last


def _land(reader: Connector, first: date, last: date, kept: Set[str]) -> Iterator[Landed]:
    """``kept``: snapshots of which no day that has landed may change."""
    source = reader.source
    started = time.monotonic()
    found = list(extracts(reader, first, last))
    extracting = (time.monotonic() - started) / max(len(found), 1)
    range_of_days = list(days(first, last))
    with connect("loader") as conn:
        lock(conn, source)
        found = list(late.with_late(conn, reader, found, first, last))
        # All before anything is written: a source that lost its keys stops here.
        found = [_whole(conn, reader, one, first, last) for one in found]
        for one in found:
            started = time.monotonic()
            taken = range_of_days
            if one.entity in kept:
                one, taken = _not_seen_since(conn, source, one, range_of_days)
            _quarantine(conn, source, one, taken)
            batches = _replace(source, one, taken)
            _record(conn, source, one, taken, batches)
            drift.mark(conn, source, one.entity, one.seen_on, taken)
            seconds = extracting + time.monotonic() - started
            yield Landed(one.entity, len(taken), one.rows.num_rows, len(one.broken), seconds)


def _whole(conn: psycopg.Connection, reader: Connector, one: Extract, first: date, last: date) -> Extract:
    """Rows with what bronze keeps of columns that the YAML does not name, and with the keys that are gone."""
    known = drift.note(conn, reader.source, one.entity, one.seen_on, last)
    rows = drift.widened(reader.source.entities[one.entity], one.rows, one.extra, known, last)
    gone = deletes.compared(conn, reader, one, first, last)
    return replace(one, rows=pa.concat_tables([rows, gone], promote_options="default"), extra=None)


def _not_seen_since(
    conn: psycopg.Connection, source: Source, one: Extract, range_of_days: list[date]
) -> tuple[Extract, list[date]]:
    """What may be written of a table that can only be read as it is now: days that were never landed, as empty."""
    there = {
        day
        for (day,) in conn.execute(
            sql.SQL("select partition_on from {} where entity = %s").format(
                sql.Identifier(source.raw_schema, "_landed")
            ),
            (one.entity,),
        )
    }
    nothing = replace(one, rows=one.rows.slice(0, 0), broken=[])
    return nothing, [day for day in range_of_days if day not in there]


def _replace(source: Source, one: Extract, taken: list[date]) -> dict[date, str]:
    """Write bronze; returns the batches of the days. Days that are not in ``taken`` stay as they are."""
    entity = source.entities[one.entity]
    if not taken:
        return {}
    if (taken[-1] - taken[0]).days + 1 == len(taken):
        return bronze.replace(source.source, one.entity, entity, one.rows, taken[0], taken[-1])
    batches: dict[date, str] = {}
    for day in taken:
        rows = one.rows.filter(pc.equal(one.rows["partition_on"], pa.scalar(day)))
        batches |= bronze.replace(source.source, one.entity, entity, rows, day, day)
    return batches


def _quarantine(conn: psycopg.Connection, source: Source, one: Extract, taken: list[date]) -> None:
    """Text of lines that are no rows, which must not reach the lake: replaced for the days."""
    table = sql.Identifier("quarantine", one.entity)
    gone = conn.execute(
        sql.SQL(
            "delete from {} where source = %s and partition_on = any(%s) "
            "and (rule = %s or original is not null) returning original is not null"
        ).format(table),
        (source.source, taken, LINE_PARSES),
    ).fetchall()
    if (True,) in gone:
        # Mended rows are laid over what lands now by the gate alone.
        conn.execute(
            "delete from ops.quality_result where gate = 'raw' and target = %s and as_of = any(%s)",
            (f"{source.source}.{one.entity}", taken),
        )
    with conn.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                """insert into {} (source, file, line, rule, payload, partition_on, rules, columns)
                   values (%s, %s, %s, %s, %s, %s, %s, %s)
                   on conflict (source, partition_on, file, line) do update
                   set rule = excluded.rule, payload = excluded.payload, rules = excluded.rules,
                       original = null, is_mended = false, columns = excluded.columns, quarantined_at = now()"""
            ).format(table),
            [_row(source, one.entity, broken) for broken in one.broken],
        )


def _row(source: Source, name: str, broken: Broken) -> tuple:
    of = broken.error.partition(IN_COLUMN)[2]
    columns = [column for column, said in source.entities[name].source_columns.items() if said == of]
    return (
        source.source, broken.file, broken.line, LINE_PARSES, broken.text, broken.partition_on, [LINE_PARSES],
        columns or [of][: bool(of)],
    )  # fmt: skip


def _record(
    conn: psycopg.Connection, source: Source, one: Extract, range_of_days: list[date], batches: dict[date, str]
) -> None:
    """What the days are made of now. A batch in bronze that is not the one in here means: land again."""
    counts = bronze.count_by_day(one.rows)
    broken = Counter(item.partition_on for item in one.broken)
    rows = pa.table(
        {
            "entity": [one.entity] * len(range_of_days),
            "partition_on": range_of_days,
            "n_rows": [counts.get(day, 0) for day in range_of_days],
            "n_broken": [broken[day] for day in range_of_days],
            "batch": [batches.get(day, bronze.NOTHING) for day in range_of_days],
        }
    )
    table = sql.Identifier(source.raw_schema, "_landed")
    conn.execute(
        sql.SQL("delete from {} where entity = %s and partition_on = any(%s)").format(table),
        (one.entity, range_of_days),
    )
    copy_table(conn, f"{source.raw_schema}._landed", rows)
