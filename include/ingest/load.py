"""Load: bronze minus quarantine into raw, counted to the row, all entities of a source in one transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import psycopg
import pyarrow as pa
from psycopg import sql

from include.dates import days
from include.ingest import bronze
from include.ingest.sources import Entity, Source
from include.ingest.tables import columns, landed, lock
from include.ops import LoadCount, record_loads
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect

VERDICT = "quarantine_share_within_threshold"
"""The gate's verdict on an entity's day: its critical rule. ``observed.files`` says which bronze files it judged."""


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

    Of several rows with one key on one day the newest ``known_at`` stays, then the last line; the others count as
    duplicate. ``RuntimeError`` when the gate has no verdict on the bronze files that are there, or a failing one.
    """
    range_of_days = list(days(first, last))
    result = []
    with connect("loader") as conn:
        lock(conn, source)
        refuse_unjudged(conn, source, range_of_days)
        for name, entity in source.raw_entities.items():
            started = time.monotonic()
            counts = _load_entity(conn, source, name, entity, range_of_days)
            result.append(
                Loaded(
                    name, len(range_of_days), sum(one.n_in for one in counts), sum(one.n_loaded for one in counts),
                    sum(one.n_duplicate for one in counts), sum(one.n_quarantined for one in counts),
                    time.monotonic() - started,
                )
            )  # fmt: skip
    if any(one.n_loaded > 10_000 for one in result):
        with connect("loader", autocommit=True) as conn:
            for name in source.raw_entities:
                conn.execute(sql.SQL("analyze {}").format(sql.Identifier(source.raw_schema, name)))
    return result


def refuse_unjudged(conn: psycopg.Connection, source: Source, range_of_days: Sequence[date]) -> None:
    """``RuntimeError`` unless the gate let all entities of the days through, as bronze holds them now."""
    wanted = landed(conn, source, range_of_days)
    there = {name: bronze.fingerprints(source.source, name) for name in source.entities}
    verdicts = {
        (target.split(".", 1)[1], day): (is_passed, files)
        for target, day, is_passed, files in conn.execute(
            """select target, as_of, is_passed, observed ->> 'files' from ops.quality_result
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
    for (name, day), (_, files) in wanted.items():
        is_passed, judged = verdicts.get((name, day), (None, None))
        if files != there[name].get(day, bronze.NOTHING):
            raise RuntimeError(
                f"Bronze of {source.source}.{name} of {day} is not what was landed: "
                f"run python -m include.ingest land --source {source.source} --as-of {day}, then the gate."
            )
        if is_passed is None:
            raise RuntimeError(f"The raw gate has no verdict on {source.source}.{name} of {day}: {gate} {day} first.")
        if not is_passed:
            raise RuntimeError(
                f"The raw gate stopped {source.source}.{name} of {day}: nothing of {source.source} is loaded. "
                f"See ops.quality_result and quarantine.{name}."
            )
        if judged != files:
            raise RuntimeError(
                f"{source.source}.{name} of {day} was landed again after the gate judged it: {gate} {day} first."
            )


def _load_entity(
    conn: psycopg.Connection, source: Source, name: str, entity: Entity, range_of_days: Sequence[date]
) -> list[LoadCount]:
    bounds = (range_of_days[0], range_of_days[-1])
    kinds = columns(entity)
    rows = bronze.read(source.source, name, entity, *bounds)
    n_in = bronze.count_by_day(rows)
    good, quarantined = _without_quarantined(conn, source, name, rows, *bounds)
    n_good = bronze.count_by_day(good)

    stage = sql.Identifier("stage")
    table = sql.Identifier(source.raw_schema, name)
    names = sql.SQL(", ").join(sql.Identifier(column) for column in kinds)
    conn.execute(
        sql.SQL("create temp table {} ({}) on commit drop").format(
            stage,
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in kinds.items()
            ),
        )
    )
    copy_table(conn, "stage", good.select(list(kinds)))
    conn.execute(sql.SQL("delete from {} where partition_on between %s and %s").format(table), bounds)
    version = sql.SQL(", ").join(sql.Identifier(column) for column in ("partition_on", *entity.key))
    conn.execute(
        sql.SQL(
            """insert into {table} ({names}) select distinct on ({version}) {names} from {stage}
               order by {version}, known_at desc, _file desc, _line desc"""
        ).format(table=table, names=names, version=version, stage=stage)
    )
    conn.execute(sql.SQL("drop table {}").format(stage))
    # The order of rows does not matter to the sum, the content of every column does.
    loaded = {
        day: (n, checksum)
        for day, n, checksum in conn.execute(
            sql.SQL(
                """select partition_on, count(*), sum(hashtextextended(({names})::text, 0))::text
                   from {table} where partition_on between %s and %s group by partition_on"""
            ).format(names=sql.SQL("row({})").format(names), table=table),
            bounds,
        )
    }
    counts = []
    for day in range_of_days:
        n_loaded, checksum = loaded.get(day, (0, "0"))
        counts.append(
            LoadCount(
                source.source, name, day, n_in.get(day, 0), n_loaded, n_good.get(day, 0) - n_loaded,
                quarantined.get(day, 0), checksum,
            )
        )  # fmt: skip
    record_loads(conn, counts)
    return counts


def _without_quarantined(
    conn: psycopg.Connection, source: Source, name: str, rows: pa.Table, first: date, last: date
) -> tuple[pa.Table, dict[date, int]]:
    """The rows that are not in the quarantine, and how many rows a day the quarantine holds."""
    found = conn.execute(
        sql.SQL(
            "select partition_on, file, line from quarantine.{} where source = %s and partition_on between %s and %s"
        ).format(sql.Identifier(name)),
        (source.source, first, last),
    ).fetchall()
    if not found:
        return rows, {}
    keys = ["partition_on", "_file", "_line"]
    bad = pa.table(
        {
            key: pa.array(values, rows.schema.field(key).type)
            for key, values in zip(keys, zip(*found, strict=True), strict=True)
        }
    )
    return rows.join(bad, keys=keys, join_type="left anti"), bronze.count_by_day(bad)
