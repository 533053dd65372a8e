"""Adapters: a source's rows of a range of business days, shaped for bronze, persons already pseudonymised."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from include.dates import days, end_of, parse_day, start_of
from include.ingest import bronze, files, replay
from include.ingest.pseudonym import mask_emails, pseudonyms
from include.ingest.sources import Entity, Source
from include.settings import settings
from include.warehouse.engine import connect, engine

DAY = np.timedelta64(1, "D")
TICK = np.timedelta64(1, "us")


@dataclass(frozen=True)
class Broken:
    """A line that is no row. Its text goes to the quarantine, never to the lake."""

    partition_on: date
    file: str
    line: int
    error: str
    text: str


@dataclass(frozen=True)
class Extract:
    """An entity's rows as bronze holds them, and the text of its broken lines."""

    entity: str
    rows: pa.Table
    broken: list[Broken]


def extract(source: Source, first: date, last: date, data: Path | None = None) -> Iterator[Extract]:
    """Each entity's rows that became known on ``first``..``last``.

    ``data`` is the folder of a history dump (default ``EMPORIUM_DATA``). ``FileNotFoundError`` and ``ValueError``
    say in one sentence which folder, file or column is missing.
    """
    adapters: dict[str, Callable[..., Iterator[Extract]]] = {
        "sql": _sql,
        "daily_csv": _daily,
        "daily_jsonl": _daily,
        "replay": _replay,
    }
    yield from adapters[source.adapter](source, first, last, data)


def span(source: Source, data: Path | None = None) -> tuple[date, date]:
    """The first and the last business day on which the source can have rows: what a full load takes.

    For a history dump the days of the first and the last thing known in it, for the demo those of the settings.
    """
    if source.adapter != "replay":
        return parse_day(settings().demo_start), parse_day(settings().demo_end)
    found = []
    for entity in source.entities.values():
        assert entity.known is not None
        columns = list(replay.EVENTS) if entity.known.by == "order_lifecycle" else [entity.known.column or ""]
        if columns != [""]:
            path = _dump_path(source, entity, _dump_folder(source, data))
            lines = files.read_csv(path, {name: entity.source_columns[name] for name in columns}, path.name)
            found += [replay.times(pa.array(lines.columns[name], pa.string())) for name in columns]
    moments = np.concatenate(found)
    moments = moments[~np.isnat(moments)]
    if not len(moments):
        raise ValueError(f"Nothing in the dump of {source.source} says when anything happened.")
    return moments.min().astype("datetime64[D]").item(), moments.max().astype("datetime64[D]").item()


def _shape(
    entity_name: str,
    entity: Entity,
    table: pa.Table,
    partition_on: np.ndarray,
    known_at: np.ndarray,
    file: list[str] | pa.Array | pa.ChunkedArray,
    line: np.ndarray,
    errors: list[str | None],
    texts: dict[int, str],
) -> Extract:
    columns: dict[str, Any] = {}
    for name, column in entity.columns.items():
        values = table.column(name)
        if column.upper:
            values = pc.utf8_upper(values)
        columns[name] = pseudonyms(column.pseudonym, values) if column.pseudonym else mask_emails(values)
    columns["partition_on"] = pa.array(partition_on.astype("datetime64[D]"), pa.date32())
    columns["known_at"] = pa.array(known_at.astype("datetime64[us]"), pa.timestamp("us", tz="UTC"))
    columns["_file"] = file
    columns["_line"] = pa.array(line, pa.int64())
    columns["_error"] = pa.array(errors, pa.string())
    rows = pa.table(columns, schema=bronze.schema(entity))
    broken = [
        Broken(
            rows["partition_on"][position].as_py(),
            rows["_file"][position].as_py(),
            rows["_line"][position].as_py(),
            rows["_error"][position].as_py(),
            mask_emails(pa.array([text]))[0].as_py(),
        )
        for position, text in texts.items()
    ]
    return Extract(entity_name, rows, broken)


def _table(entity: Entity, lines: files.Lines) -> pa.Table:
    return pa.table({name: pa.array(lines.columns.get(name, []), pa.string()) for name in entity.source_columns})


# --- a file per business day ---------------------------------------------------------------------


def _daily(source: Source, first: date, last: date, data: Path | None) -> Iterator[Extract]:
    assert source.folder is not None
    folder = settings().home / source.folder
    for name, entity in source.entities.items():
        wanted = entity.source_columns
        gathered = files.Lines(columns={column: [] for column in wanted})
        counts = []
        for day in days(first, last):
            before = len(gathered.numbers)
            if (path := _daily_path(source, entity, folder, day)) is not None:
                label = str(path.relative_to(settings().home))
                read = files.read_csv if source.adapter == "daily_csv" else files.read_jsonl
                gathered.extend(read(path, wanted, label))
            counts.append(len(gathered.numbers) - before)
        partition_on = np.repeat(np.arange(np.datetime64(first), np.datetime64(last) + DAY), counts)
        table = _table(entity, gathered)
        start = partition_on.astype("datetime64[us]")
        known_at = start
        if entity.known_at:
            said = replay.times(table.column(entity.known_at).combine_chunks())
            # What a day's file says was known on that day, whatever its clock says.
            known_at = np.where(np.isnat(said), start, np.clip(said, start, start + DAY - TICK))
        yield _shape(
            name, entity, table, partition_on, known_at, pa.array(gathered.files, pa.string()),
            np.array(gathered.numbers, "int64"), gathered.errors, gathered.broken,
        )  # fmt: skip


def _daily_path(source: Source, entity: Entity, folder: Path, day: date) -> Path | None:
    if source.adapter == "daily_jsonl":
        where, name = folder, f"{day}.jsonl"
    else:
        where, name = folder / day.isoformat(), f"{entity.file}.csv"
    try:
        return files.find(where, name, hint=f"{source.source} has not delivered {day}.")
    except FileNotFoundError:
        if entity.optional and where.is_dir():
            return None
        raise


# --- history dumps -------------------------------------------------------------------------------


def _dump_folder(source: Source, data: Path | None) -> Path:
    folder = data or settings().data
    if folder is None:
        raise FileNotFoundError(f"Say where the files of {source.source} are: --data FOLDER or EMPORIUM_DATA.")
    return folder


def _dump_path(source: Source, entity: Entity, folder: Path) -> Path:
    return files.find(folder, f"{entity.file}.csv", hint=f"It belongs to the source {source.source}.")


def _catalogue_day(source: Source, name: str, opened: np.datetime64, first: date) -> date:
    """The day on which catalogue data are known: the first that was loaded, else the first that now is.

    A load that begins after the dump does (``--from``) has to bring the catalogue too; once loaded it keeps its day,
    so that a rerun of any day decides the same.
    """
    with connect("loader") as conn:
        loaded = conn.execute(
            "select min(partition_on) from ops.load_audit where source = %s and entity = %s and n_in > 0",
            (source.source, name),
        ).fetchone()
    return loaded[0] if loaded and loaded[0] else max(first, opened.astype("datetime64[D]").item())


def _replay(source: Source, first: date, last: date, data: Path | None) -> Iterator[Extract]:
    folder = _dump_folder(source, data)
    read: dict[str, files.Lines] = {}
    tables: dict[str, pa.Table] = {}
    for name, entity in source.entities.items():
        path = _dump_path(source, entity, folder)
        read[name] = files.read_csv(path, entity.source_columns, path.name)
        tables[name] = _table(entity, read[name])
    known = replay.known_times(source, tables)
    for name, entity in source.entities.items():
        table, lines = tables[name], read[name]
        if entity.known is not None and entity.known.by == "first_day" and len(table):
            known[name][:] = np.datetime64(_catalogue_day(source, name, known[name][0], first), "us")
        if entity.numbered_within:
            numbers = replay.numbered(table, list(entity.source_columns), entity.numbered_within)
            table = table.append_column(entity.key[-1], pa.array(numbers, pa.string()))
        assert entity.known is not None
        if entity.known.by == "order_lifecycle":
            taken, known_at, rows = replay.order_versions(table, known[name], first, last)
        else:
            taken, known_at, rows = replay.take_known(table, known[name], first, last)
        texts = {}
        if lines.broken:
            texts = {at: lines.broken[row] for at, row in enumerate(rows.tolist()) if row in lines.broken}
        yield _shape(
            name, entity, taken, known_at, known_at, pa.array(lines.files, pa.string()).take(pa.array(rows)),
            np.array(lines.numbers, "int64")[rows], [lines.errors[row] for row in rows.tolist()], texts,
        )  # fmt: skip


# --- databases -----------------------------------------------------------------------------------


def _sql(source: Source, first: date, last: date, data: Path | None) -> Iterator[Extract]:
    # dlt reports its use unless told not to, before it is imported.
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    from dlt.sources.sql_database import sql_table

    with _snapshot(source) as engine:
        for name, entity in source.entities.items():
            # The columns come from the YAML, so there is nothing to reflect.
            known_columns = sa.MetaData(schema=source.db_schema)
            table = sa.Table(
                entity.table or name,
                known_columns,
                *(sa.Column(one, sa.Text) for one in entity.source_columns.values()),
            )
            query = _query(entity, table, first, last)
            resource = sql_table(
                credentials=engine,
                table=table.name,
                schema=source.db_schema,
                metadata=known_columns,
                backend="pyarrow",
                query_adapter_callback=lambda _select, _table, query=query: query,
            )
            try:
                pieces = [_strings(piece, entity) for piece in resource]
            except Exception as error:
                raise ValueError(f"{source.source}.{name} cannot be read: {_reason(error)}") from error
            rows = pa.concat_tables(pieces) if pieces else _strings(None, entity)
            assert entity.known_at is not None
            known_at = replay.times(rows.column(entity.known_at).combine_chunks())
            partition_on = known_at.astype("datetime64[D]")
            # Position within the day: a rerun of the day numbers the same rows the same.
            line = pd.Series(partition_on).groupby(partition_on).cumcount().to_numpy() + 1
            label = f"{source.db_schema}.{entity.table or name}"
            yield _shape(
                name, entity, rows, partition_on, known_at, pa.array([label] * len(rows), pa.string()), line,
                [None] * len(rows), {},
            )  # fmt: skip


def _query(entity: Entity, table: sa.Table, first: date, last: date) -> sa.Select:
    """All columns as text, of the rows whose cursor lies in the days, oldest first."""
    rows: sa.FromClause = table
    if entity.query:
        rows = sa.text(entity.query).columns(*(sa.column(one.name, sa.Text) for one in table.c)).subquery("rows")
    assert entity.known_at is not None
    names = entity.source_columns
    cursor = sa.type_coerce(rows.c[names[entity.known_at]], sa.DateTime)
    return (
        sa.select(*(sa.cast(rows.c[of], sa.String).label(name) for name, of in names.items()))
        .where(cursor >= start_of(first).replace(tzinfo=None), cursor < end_of(last).replace(tzinfo=None))
        .order_by(cursor, *(rows.c[names[name]] for name in entity.key))
    )


def _strings(piece: pa.Table | None, entity: Entity) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in entity.source_columns])
    if piece is None:
        return schema.empty_table()
    return piece.select(schema.names).cast(schema)


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: dlt and SQLAlchemy wrap what the database said."""
    while (cause := error.__cause__) is not None:
        error = cause
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


@contextmanager
def _snapshot(source: Source) -> Iterator[sa.Engine]:
    """An engine whose reads, on Postgres, all see the source as it was at one moment, and cannot write."""
    readers = engine(source.role, database=source.database)
    try:
        if readers.dialect.name != "postgresql":
            yield readers
            return
        with readers.connect() as holder:
            holder.exec_driver_sql("set transaction isolation level repeatable read, read only")
            snapshot: str = holder.exec_driver_sql("select pg_export_snapshot()").scalar_one()

            @sa.event.listens_for(readers, "begin")
            def _same_moment(connection: sa.Connection) -> None:
                # Past SQLAlchemy, which would declare a streaming cursor for it.
                cursor = connection.connection.cursor()
                cursor.execute("set transaction isolation level repeatable read, read only")
                cursor.execute(f"set transaction snapshot '{snapshot}'")
                cursor.close()

            yield readers
    except sa.exc.OperationalError as error:
        raise ValueError(f"The database of {source.source} does not answer: {_reason(error)}") from error
    finally:
        readers.dispose()
