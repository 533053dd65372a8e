"""Late rows: those that came into the source after the day that they name had been landed.

A transaction that took long, or a replica that lags, brings a row whose cursor lies in a day that was read already;
no later window would find it. With ``late_days`` in the YAML each landing looks back that far and takes what bronze
lacks into its own day, as the files of a day do: known from the start of that day on, the cursor as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from include.dates import start_of
from include.ingest import bronze
from include.ingest.connectors import Connector
from include.ingest.extract import Extract, extracts
from include.ingest.replay import times

FILE = "{}, late"
"""What a late row names as its file, so that its line is no other row's."""
MARGIN = timedelta(days=31)
"""How long after the days that are looked at a late row may have been landed."""


def with_late(
    conn: psycopg.Connection, reader: Connector, found: list[Extract], first: date, last: date
) -> Iterator[Extract]:
    """``found``, the rows of ``first``..``last``, each with the late ones of the days before.

    A row is late when it names one of the ``late_days`` days before ``first`` and was not landed with any day but
    ``first``..``last``: neither with its own nor, late, with another. What makes it the same row is its key with its
    cursors, so that a value that is changed in place is no late row. Only days that were landed are looked at.
    """
    source = reader.source
    since, until = first - timedelta(days=source.late_days), first - timedelta(days=1)
    landed = _landed(conn, reader, since, until) if source.late_days else {}
    if not landed:
        yield from found
        return
    before = {one.entity: one for one in extracts(reader, since, until) if one.entity in landed}
    for one in found:
        late = before.get(one.entity)
        if late is not None:
            late = _late(reader, late, landed[one.entity], first, last)
            one = _with(one, late)
        yield one


def _landed(conn: psycopg.Connection, reader: Connector, since: date, until: date) -> dict[str, list[date]]:
    """Entity with a cursor -> its landed days."""
    days: dict[str, list[date]] = {}
    for name, day in conn.execute(
        sql.SQL("select entity, partition_on from {} where partition_on between %s and %s order by 1, 2").format(
            sql.Identifier(reader.source.raw_schema, "_landed")
        ),
        (since, until),
    ):
        entity = reader.source.entities.get(name)
        if entity is not None and entity.cursor and not reader.is_snapshot(name):
            days.setdefault(name, []).append(day)
    return days


def _late(reader: Connector, one: Extract, landed: list[date], first: date, last: date) -> Extract:
    source, name = reader.source, one.entity
    entity = source.entities[name]
    cursors = [entity.cursor, getattr(reader.reads[name], "changed", None)]
    identity = list(dict.fromkeys([*entity.key, *(column for column in cursors if column)]))
    begin, end = landed[0], last + MARGIN
    there = {
        row
        for piece in bronze.pieces(source.source, name, entity, begin, end)
        for row in _rows(piece.filter(_outside(piece, first, last)), identity)
    }
    keep = []
    # A row with a cursor in a later day comes with that day.
    is_past = np.ones(one.rows.num_rows, bool)
    for column in (column for column in cursors if column):
        is_past &= ~(times(one.rows[column].combine_chunks()) >= np.datetime64(first, "us"))
    is_row = is_past & pc.is_null(one.rows["_error"]).to_numpy()
    is_row &= pc.is_in(one.rows["partition_on"], pa.array(landed, pa.date32())).to_numpy()
    for at, row in enumerate(_rows(one.rows, identity)):
        if is_row[at] and row not in there:
            keep.append((tuple(value or "" for value in row), at))
    # By key and cursor, so that the order in which a source answers changes no line.
    taken = pa.array([at for _, at in sorted(keep)], pa.int64())
    rows = one.rows.take(taken)
    n = len(keep)
    values = {
        "partition_on": pa.array([first] * n, pa.date32()),
        "known_at": pa.array([start_of(first)] * n, pa.timestamp("us", tz="UTC")),
        "_file": pa.array([FILE.format(file) for file in rows["_file"].to_pylist()], pa.string()),
        # Its position among the late ones.
        "_line": pa.array(np.arange(1, n + 1), pa.int64()),
    }
    for column, array in values.items():
        rows = rows.set_column(rows.column_names.index(column), column, array)
    return replace(one, rows=rows, broken=[], extra=one.extra.take(taken) if one.extra is not None else None)


def _with(one: Extract, late: Extract) -> Extract:
    """``one`` and the rows of ``late``; which columns there are, the days themselves say."""
    if not late.rows.num_rows:
        return one
    extra = None
    if (some := one.extra if one.extra is not None else late.extra) is not None:
        # Rows without extra columns keep their places.
        sides = [
            side.extra
            if side.extra is not None
            else pa.table({some.column_names[0]: pa.nulls(side.rows.num_rows, pa.string())})
            for side in (one, late)
        ]
        extra = pa.concat_tables(sides, promote_options="default")
    rows = pa.concat_tables([one.rows, late.rows]).combine_chunks()
    return replace(one, rows=rows, extra=extra)


def _outside(rows: pa.Table, first: date, last: date) -> pa.ChunkedArray:
    day = rows["partition_on"]
    return pc.or_(pc.less(day, pa.scalar(first)), pc.greater(day, pa.scalar(last)))


def _rows(rows: pa.Table, columns: list[str]) -> Iterator[tuple[str | None, ...]]:
    return zip(*(rows[column].to_pylist() for column in columns), strict=True)
