"""Deletes: rows that a source no longer has become a last version with ``_deleted``, and stay in raw.

A source that marks its rows says so in a column (``deletes: {by: column}``, see ``include.ingest.extract``). One that
forgets them is asked for all its keys every few days, and those that it no longer has are entered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from include.dates import end_of
from include.ingest import bronze
from include.ingest.connectors import Connector, SourceError
from include.ingest.extract import Extract, cleaned
from include.ingest.sources import Deletes, Entity, Source
from include.ingest.tables import PG_TYPES
from include.ingest.types import parse
from include.warehouse.copy import copy_table

FILE = "key comparison"
"""What rows that no file brought name as their file; their lines count from 1 each day."""


def is_due(deletes: Deletes, first: date, last: date) -> bool:
    """Whether keys are compared on one of the days: every ``every_days``, by the number of the day."""
    return last.toordinal() // deletes.every_days > (first.toordinal() - 1) // deletes.every_days


def compared(conn: psycopg.Connection, reader: Connector, one: Extract, first: date, last: date) -> pa.Table:
    """Rows of ``FILE`` for ``first``..``last``, in ``bronze.schema``: usually none.

    A day that was landed before keeps what its comparison found then, and no day before the newest is compared: the
    source only tells what it has now. Otherwise, when it is due, each key that the source lacks and whose newest
    version is not deleted is a tombstone, known at the end of ``last``; one that we took for deleted and that is
    there again is a version like its last one. ``SourceError`` when too many keys are gone.
    """
    source, name = reader.source, one.entity
    entity = source.entities[name]
    nothing = bronze.schema(entity).empty_table()
    if entity.deletes is None or entity.deletes.by != "keys":
        return nothing
    landed = {
        day
        for (day,) in conn.execute(
            sql.SQL("select partition_on from {} where entity = %s and partition_on >= %s").format(
                sql.Identifier(source.raw_schema, "_landed")
            ),
            (name, first),
        )
    }
    kept = nothing
    if landed:
        kept = pa.concat_tables([nothing, *bronze.pieces(source.source, name, entity, first, last, file=FILE)])
        kept = kept.filter(pc.is_in(kept["partition_on"], pa.array(sorted(landed), pa.date32())))
    if last in landed or any(day > last for day in landed) or not is_due(entity.deletes, first, last):
        return kept
    return pa.concat_tables([kept, _compare(conn, reader, name, entity, one.rows, first, last)])


def _compare(
    conn: psycopg.Connection, reader: Connector, name: str, entity: Entity, rows: pa.Table, first: date, last: date
) -> pa.Table:
    source = reader.source
    _stage(conn, "key_there", entity, _keys(source, name, entity, reader.keys(name)), {})
    fresh = rows.filter(pc.is_null(rows["_error"]))
    at = pa.array(np.flatnonzero(pc.is_null(rows["_error"]).to_numpy()), pa.int64())
    _stage(
        conn,
        "key_fresh",
        entity,
        fresh.select([*entity.key, "known_at", "partition_on", "_deleted"]).append_column("at", at),
        {"known_at": "timestamptz", "partition_on": "date", "_deleted": "boolean", "at": "bigint"},
    )
    parts: dict[str, Any] = {
        "raw": sql.Identifier(source.raw_schema, name),
        "key": sql.SQL(", ").join(map(sql.Identifier, entity.key)),
        "file": sql.Literal(FILE),
        "first": sql.Literal(first),
        "columns": sql.SQL(", ").join(sql.SQL("r.{}::text").format(sql.Identifier(one)) for one in entity.columns),
        "same": sql.SQL(" and ").join(sql.SQL("r.{0} = k.{0}").format(sql.Identifier(one)) for one in entity.key),
    }
    # The newest version of each key: of the rows that are landing where there is one, else of raw.
    conn.execute(
        sql.SQL(
            """create temp table key_known on commit drop as
               select distinct on ({key}) * from (
                 select {key}, known_at, partition_on, _deleted, _file = {file} as is_ours, null::bigint as at
                 from {raw} where partition_on < {first}
                 union all select {key}, known_at, partition_on, _deleted, false, at from key_fresh) as versions
               order by {key}, known_at desc, partition_on desc"""
        ).format(**parts)
    )
    conn.execute("alter table key_known add column is_there boolean not null default false")
    conn.execute(sql.SQL("update key_known as k set is_there = true from key_there as r where {same}").format(**parts))
    n_there, n_known, n_gone = conn.execute(
        """select (select count(*) from key_there), count(*) filter (where not _deleted),
                  count(*) filter (where not _deleted and not is_there) from key_known"""
    ).fetchone() or (0, 0, 0)
    assert entity.deletes is not None
    refuse_too_many(f"{source.source}.{name}", entity.deletes, n_there, n_known, n_gone)
    changed = "(k._deleted and k.is_ours and k.is_there or not k._deleted and not k.is_there)"
    copies = conn.execute(
        sql.SQL(
            "select not k._deleted, {columns} from key_known as k join {raw} as r on {same} "
            "and r.partition_on = k.partition_on where k.at is null and " + changed
        ).format(**parts)
    ).fetchall()
    positions = [at for (at,) in conn.execute(f"select at from key_known as k where at is not null and {changed}")]
    copies += [
        (True, *row.values())
        for row in rows.take(pa.array(positions, pa.int64())).select(list(entity.columns)).to_pylist()
    ]
    conn.execute("drop table key_there, key_fresh, key_known")
    return _rows(entity, copies, last)


def refuse_too_many(target: str, deletes: Deletes, n_there: int, n_known: int, n_gone: int) -> None:
    """A source that is broken or half restored must not empty the warehouse."""
    if n_known and not n_there:
        raise SourceError(
            f"{target}: the source has no keys at all where {n_known} are known: nothing is landed. Look at the "
            "source; if it is truly empty, take `deletes` out of the YAML and write the deletion by hand."
        )
    if n_known and n_gone / n_known > deletes.max_share:
        raise SourceError(
            f"{target}: {n_gone} of {n_known} known keys ({n_gone / n_known:.1%}) are gone from the source, more than "
            f"`deletes.max_share` ({deletes.max_share:.1%}): nothing is landed. If that is true, raise max_share in "
            "the YAML for this run."
        )


def _keys(source: Source, name: str, entity: Entity, keys: pa.Table) -> pa.Table:
    """Keys as raw has them: cleaned as extraction does."""
    lacking = [one for one in entity.key if one not in keys.column_names]
    if lacking:
        raise SourceError(f"{source.source}.{name}: the keys of the source lack {', '.join(lacking)}.")
    return pa.table(
        {one: cleaned(source, entity.columns[one], keys[one].cast(pa.string()).combine_chunks()) for one in entity.key}
    )


def _stage(conn: psycopg.Connection, table: str, entity: Entity, rows: pa.Table, more: dict[str, str]) -> None:
    """A temporary table of keys, typed as raw types them; a key that cannot be read is none that raw has."""
    kinds = {one: PG_TYPES.get(entity.columns[one].type, entity.columns[one].type) for one in entity.key} | more
    conn.execute(
        sql.SQL("create temp table {} ({}) on commit drop").format(
            sql.Identifier(table),
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in kinds.items()
            ),
        )
    )
    is_good = np.ones(rows.num_rows, bool)
    for one in entity.key:
        is_good &= parse(rows[one], entity.columns[one].type)[1] & rows[one].is_valid().to_numpy(zero_copy_only=False)
    copy_table(conn, table, rows.filter(pa.array(is_good)).select(list(kinds)))
    conn.execute(sql.SQL("analyze {}").format(sql.Identifier(table)))


def _rows(entity: Entity, copies: Sequence[tuple], last: date) -> pa.Table:
    """Bronze rows of (is deleted, text of every column)."""
    names = list(entity.columns)
    at_key = [1 + names.index(one) for one in entity.key]
    ordered = sorted(copies, key=lambda row: [row[at] or "" for at in at_key])
    n = len(ordered)
    columns: dict[str, Any] = {
        name: pa.array([row[at] for row in ordered], pa.string()) for at, name in enumerate(names, 1)
    }
    columns |= {
        "partition_on": pa.array([last] * n, pa.date32()),
        "known_at": pa.array([end_of(last) - timedelta(microseconds=1)] * n, pa.timestamp("us", tz="UTC")),
        "_file": pa.array([FILE] * n, pa.string()),
        "_line": pa.array(range(1, n + 1), pa.int64()),
        "_error": pa.nulls(n, pa.string()),
        "_deleted": pa.array([row[0] for row in ordered], pa.bool_()),
    }
    return pa.table(columns, schema=bronze.schema(entity))


def fill_tombstones(conn: psycopg.Connection, source: Source, name: str, first: date, last: date) -> None:
    """Give the tombstones of raw's days what their source left out: the values that were last known of their key.

    A source may say no more than a key. What reads raw need not care, and can tell whose the row was.
    """
    entity = source.entities[name]
    others = [column for column in entity.columns if column not in entity.key]
    if not others:
        return
    table = sql.Identifier(source.raw_schema, name)

    def listed(pattern: str, names: Sequence[str], between: str = ", ") -> sql.Composed:
        return sql.SQL(between).join(sql.SQL(pattern).format(sql.Identifier(one)) for one in names)

    conn.execute(
        sql.SQL(
            """update {table} as t set {filled} from (
                 select distinct on ({keys}, d.partition_on) {keys}, d.partition_on, {values}
                 from {table} as d join {table} as p on {same} and p.partition_on < d.partition_on and not p._deleted
                 where d._deleted and d.partition_on between %s and %s and ({lacks})
                 order by {keys}, d.partition_on, p.known_at desc, p.partition_on desc) as p
               where {target} and t.partition_on = p.partition_on"""
        ).format(
            table=table,
            filled=listed("{0} = coalesce(t.{0}, p.{0})", others),
            keys=listed("d.{}", entity.key),
            values=listed("p.{}", others),
            same=listed("p.{0} = d.{0}", entity.key, " and "),
            lacks=listed("d.{} is null", others, " or "),
            target=listed("t.{0} = p.{0}", entity.key, " and "),
        ),
        (first, last),
    )
