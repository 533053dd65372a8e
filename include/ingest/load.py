"""Load: bronze minus quarantine into raw, counted to the row, all entities of a source in one transaction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import psycopg
import pyarrow as pa
from psycopg import sql

from include.dates import days
from include.ingest import bronze, deletes, drift
from include.ingest.quarantine import Place, with_mended
from include.ingest.sources import Entity, Source
from include.ingest.tables import ADDED, columns, landed, lock
from include.ingest.touched import Changes
from include.ops import LoadCount, record_loads
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect

VERDICT = "quarantine_share_within_threshold"
"""The gate's verdict on an entity's day: its critical rule. ``observed.batch`` says what the day was made of."""


@dataclass(frozen=True)
class Loaded:
    """What a load brought, over all its days."""

    entity: str
    n_days: int
    n_in: int
    n_loaded: int
    n_duplicate: int
    n_quarantined: int
    seconds: float


def load(source: Source, first: date, last: date) -> list[Loaded]:
    """Replace the days ``first``..``last`` of all raw tables of ``source`` by what the gate let through.

    Of several rows with one key on one day the newest ``known_at`` stays, then a deletion, then the greatest content;
    the others count as duplicate. ``RuntimeError`` when the gate has no verdict on what bronze holds, or a failing one.
    """
    range_of_days = list(days(first, last))
    result = []
    with connect("loader") as conn:
        lock(conn, source)
        refuse_unjudged(conn, source, range_of_days)
        changes = Changes(conn, source)
        for name, entity in source.raw_entities.items():
            started = time.monotonic()
            counts = _load_entity(conn, source, name, entity, range_of_days, changes)
            result.append(
                Loaded(
                    name, len(range_of_days), sum(one.n_in for one in counts), sum(one.n_loaded for one in counts),
                    sum(one.n_duplicate for one in counts), sum(one.n_quarantined for one in counts),
                    time.monotonic() - started,
                )
            )  # fmt: skip
        changes.write()
    with connect("loader", autocommit=True) as conn:
        for one in result:
            # A day of a large table changes no plan, and to look at the table takes longer than to load the day.
            if one.n_loaded > max(10_000, 0.1 * _rows_known(conn, source, one.entity)):
                conn.execute(sql.SQL("analyze {}").format(sql.Identifier(source.raw_schema, one.entity)))
    return result


def _rows_known(conn: psycopg.Connection, source: Source, name: str) -> float:
    """How many rows the planner thinks the raw table has."""
    row = conn.execute(
        "select greatest(reltuples, 0) from pg_class where oid = to_regclass(%s)", (f'{source.raw_schema}."{name}"',)
    ).fetchone()
    return row[0] if row else 0


def refuse_other(source: Source, name: str, landed: Mapping[tuple[str, date], tuple[int, str]]) -> None:
    """``RuntimeError`` where a day of the entity in bronze is not what was landed, by its batch or its rows."""
    of_day = {day: found for (entity, day), found in landed.items() if entity == name}
    held = bronze.held(source.source, name, min(of_day), max(of_day))
    for day, found in of_day.items():
        if found != held.get(day, (0, bronze.NOTHING)):
            raise RuntimeError(
                f"Bronze of {source.source}.{name} of {day} is not what was landed: "
                f"run python -m include.ingest land --source {source.source} --as-of {day} again, then the gate."
            )


def refuse_unjudged(conn: psycopg.Connection, source: Source, range_of_days: Sequence[date]) -> None:
    """``RuntimeError`` unless the gate let all entities of the days through, as bronze holds them now."""
    wanted = landed(conn, source, range_of_days)
    for name in source.entities:
        refuse_other(source, name, wanted)
    verdicts = {
        (target.split(".", 1)[1], day): (is_passed, batch)
        for target, day, is_passed, batch in conn.execute(
            """select target, as_of, is_passed, observed ->> 'batch' from ops.quality_result
               where gate = 'raw' and rule = %s and target = any(%s) and as_of between %s and %s""",
            (VERDICT, [f"{source.source}.{name}" for name in source.entities], range_of_days[0], range_of_days[-1]),
        )
    }
    broken = conn.execute(
        """select target, as_of, rule from ops.quality_result
           where gate = 'raw' and severity = 'critical' and not is_passed and rule <> %s
             and target = any(%s) and as_of between %s and %s limit 1""",
        (VERDICT, [f"{source.source}.{name}" for name in source.entities], range_of_days[0], range_of_days[-1]),
    ).fetchone()
    if broken:
        raise RuntimeError(f"The raw gate stopped {broken[0]} of {broken[1]} ({broken[2]}): nothing of it is loaded.")
    gate = f"run python -m expectations.raw --source {source.source} --as-of"
    for (name, day), (_, batch) in wanted.items():
        is_passed, judged = verdicts.get((name, day), (None, None))
        if is_passed is None:
            raise RuntimeError(f"The raw gate has no verdict on {source.source}.{name} of {day}: {gate} {day} first.")
        if not is_passed:
            raise RuntimeError(
                f"The raw gate stopped {source.source}.{name} of {day}: nothing of {source.source} is loaded. "
                f"See ops.quality_result and quarantine.{name}."
            )
        if judged != batch:
            raise RuntimeError(
                f"{source.source}.{name} of {day} was landed again after the gate judged it: {gate} {day} first."
            )


def _load_entity(
    conn: psycopg.Connection,
    source: Source,
    name: str,
    entity: Entity,
    range_of_days: Sequence[date],
    changes: Changes,
) -> list[LoadCount]:
    bounds = (range_of_days[0], range_of_days[-1])
    evolved = _with_evolved(conn, source, name, range_of_days[-1])
    kinds = columns(entity) | dict.fromkeys(evolved, "text")
    n_in, n_good, quarantined = _stage(conn, source, name, entity, kinds, evolved, bounds)
    table = sql.Identifier(source.raw_schema, name)
    names = _listed(kinds)
    changes.before(name, entity, kinds, *bounds)
    conn.execute(sql.SQL("delete from {} where partition_on between %s and %s").format(table), bounds)
    # What decides is what a row says, never where it stood: a file that comes shuffled or split makes the same table.
    conn.execute(
        sql.SQL(
            """insert into {table} ({names}) select distinct on ({version}) {names} from stage
               order by {version}, known_at desc, {cursor} _deleted desc,
                        (row({content})::text) collate "C" desc, _file desc, _line desc"""
        ).format(
            table=table,
            names=names,
            version=_listed(("partition_on", *entity.key)),
            # A day's file that is sent again the day after became known then, all of it at once.
            cursor=sql.SQL("{} desc nulls last,").format(sql.Identifier(entity.cursor))
            if entity.cursor
            else sql.SQL(""),
            content=_listed(one for one in kinds if one not in ADDED),
        )
    )
    conn.execute("drop table stage")
    deletes.fill_tombstones(conn, source, name, *bounds)
    changes.after(name, entity, kinds, *bounds)
    # The order of rows does not matter to the sum, the content of every column does.
    loaded = {
        day: (n, checksum)
        for day, n, checksum in conn.execute(
            sql.SQL(
                """select partition_on, count(*), sum(hash_record_extended(row({names}), 0))::text
                   from {table} where partition_on between %s and %s group by partition_on"""
            ).format(names=names, table=table),
            bounds,
        )
    }
    counts = []
    for day in range_of_days:
        n_loaded, checksum = loaded.get(day, (0, "0"))
        counts.append(
            LoadCount(
                source.source, name, day, n_in[day], n_loaded, n_good[day] - n_loaded, quarantined[day], checksum
            )
        )  # fmt: skip
    record_loads(conn, counts)
    return counts


def _stage(
    conn: psycopg.Connection,
    source: Source,
    name: str,
    entity: Entity,
    kinds: Mapping[str, str],
    evolved: Sequence[str],
    bounds: tuple[date, date],
) -> tuple[Counter[date], Counter[date], Counter[date]]:
    """Copy bronze minus quarantine, with the mended rows, to the temporary table ``stage``, piece by piece.

    Returns per day the rows of bronze, those copied, and those in the quarantine.
    """
    bad, mended = _quarantined(conn, source, name, bounds)
    n_in: Counter[date] = Counter()
    n_good: Counter[date] = Counter()
    conn.execute(
        sql.SQL("create temp table stage ({}) on commit drop").format(
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in kinds.items()
            )
        )
    )
    for rows in bronze.pieces(source.source, name, entity, *bounds, also=evolved):
        n_in.update(bronze.count_by_day(rows))
        good = with_mended(entity, rows, mended)
        if bad.num_rows:
            good = good.join(bad, keys=bad.column_names, join_type="left anti")
        n_good.update(bronze.count_by_day(good))
        copy_table(conn, "stage", good.select(list(kinds)))
    return n_in, n_good, Counter(bronze.count_by_day(bad))


def _quarantined(
    conn: psycopg.Connection, source: Source, name: str, bounds: tuple[date, date]
) -> tuple[pa.Table, dict[Place, str]]:
    """The places (day, file, line) of the rows in the quarantine, and the payloads of those that were mended."""
    found = conn.execute(
        sql.SQL(
            "select partition_on, file, line, is_mended, payload from quarantine.{} "
            "where source = %s and partition_on between %s and %s"
        ).format(sql.Identifier(name)),
        (source.source, *bounds),
    ).fetchall()
    kinds = {"partition_on": pa.date32(), "_file": pa.string(), "_line": pa.int64()}
    bad = [row[:3] for row in found if not row[3]]
    return (
        pa.table({key: pa.array([row[at] for row in bad], kind) for at, (key, kind) in enumerate(kinds.items())}),
        {row[:3]: row[4] for row in found if row[3]},
    )


def _with_evolved(conn: psycopg.Connection, source: Source, name: str, last: date) -> list[str]:
    """The columns that the entity gained by evolution, added to its raw table where they are new."""
    evolved = drift.evolved(conn, source, name, last)
    for column in evolved:
        conn.execute(
            sql.SQL("alter table {} add column if not exists {} text").format(
                sql.Identifier(source.raw_schema, name), sql.Identifier(column)
            )
        )
    return evolved


def _listed(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
