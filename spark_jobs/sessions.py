"""Sessions out of click events: ``python -m spark_jobs.sessions --source S [--source S2] --as-of D [--from D0]``.

Bronze minus quarantine becomes ``lake/silver/events``; the sessions of the visitor-days that this touched are made anew
and merged into ``lake/silver/sessions`` and ``raw_<source>.sessions``. What a session is: docs/sessions.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import psycopg
from deltalake import DeltaTable
from psycopg import sql
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from include import lake
from include.dates import days
from include.ingest.arguments import add_range, check_range
from include.ingest.load import refuse_unjudged
from include.ingest.quarantine import with_mended
from include.ingest.sources import Entity, Source, load_source
from include.ingest.tables import SESSIONS, landed, lock
from include.ingest.touched import record as record_touched
from include.ops import LoadCount, record_loads
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect
from spark_jobs.events import (
    PARTITION_BY,
    conformed,
    events_uri,
    in_days,
    once_a_day,
    read_bronze,
    read_events,
)
from spark_jobs.session import session
from spark_jobs.sessionise import COLUMNS, SCHEMA, VISITOR_DAY, is_unsettled, of_versions, sessions_at_cutoffs
from spark_jobs.versions import retried, spark_uri

ROWS_PER_CHUNK = 20_000_000
"""Days are taken together up to this many rows: what bounds the space that a shuffle needs on disk."""

LONG_ROWS = 1_000_000
"""More rows than this repay a JVM that compiles well."""

ROWS_PER_TASK = 400_000
"""What one task sorts: its rows and the window over them fit into the memory of a 1 GB driver."""


def read_sessions(spark: SparkSession) -> DataFrame:
    """``lake/silver/sessions``; no rows, the same columns, where nothing was ever written."""
    if not lake.exists(sessions_uri()):
        return spark.createDataFrame([], SCHEMA)
    return spark.read.format("delta").load(spark_uri(sessions_uri()))


def known_sessions(spark: SparkSession, cutoffs: Sequence[date]) -> DataFrame:
    """``sessions_at_cutoffs`` out of the lake; of the events only the files of unsettled days are read."""
    made = read_sessions(spark)
    unsettled = _days_of(made.where(is_unsettled(cutoffs)))
    known = read_events(spark).where((F.col("known_month") <= F.lit(max(cutoffs))) & in_days("event_on", unsettled))
    return sessions_at_cutoffs(made, known.where(F.col("known_on") <= F.lit(max(cutoffs))), cutoffs)


# --- the lake and the warehouse, kept up to date -------------------------------------------------


def sessions_uri() -> str:
    """Address of the sessions that hold now."""
    return lake.table_uri("silver", "sessions")


def touched_uri() -> str:
    """Address of the visitor-days whose events were replaced and whose sessions may not show it yet."""
    return lake.table_uri("silver", "touched")


def staged_uri(source: str) -> str:
    """Address of the sessions on their way into the lake and the warehouse."""
    return lake.table_uri("silver", "staged", source)


@dataclass(frozen=True)
class Built:
    """What became of the events of some days, and how many sessions were made anew."""

    source: str
    entity: str
    first: date
    last: date
    n_in: int
    n_loaded: int
    n_duplicate: int
    n_quarantined: int
    n_sessions: int
    seconds: float


def entity_of_events(source: Source) -> tuple[str, Entity] | None:
    """The source's entity that has ``events``, with its name."""
    return next(((name, entity) for name, entity in source.entities.items() if entity.events), None)


def build(spark: SparkSession, source: Source, first: date, last: date) -> Iterator[Built]:
    """Bring silver and ``raw_<source>.sessions`` up to date with bronze of the days ``first``..``last``.

    Chunks of days, each in one transaction of Postgres. ``RuntimeError`` when the gate has not let a day through.
    """
    found = entity_of_events(source)
    if found is None:
        return
    name, entity = found
    done = None
    while done is None or done < last:
        with connect("loader") as conn:
            lock(conn, source)
            range_of_days = list(days(first, last))
            counts = {day: n for (one, day), (n, _) in landed(conn, source, range_of_days).items() if one == name}
            # Before anything is written all of the days, then those of the chunk: they may have been landed anew.
            is_first = done is None
            done = _last_of_chunk(counts)
            refuse_unjudged(conn, source, range_of_days if is_first else list(days(first, done)))
            n_rows = sum(counts[day] for day in days(first, done))
            yield _build_chunk(spark, conn, source, name, entity, first, done, n_rows)
        # Only now do both show it: a kill before this makes these visitor-days anew.
        _forget_touched(spark, source.source)
        first = date.fromordinal(done.toordinal() + 1)


def _last_of_chunk(counts: dict[date, int]) -> date:
    n_rows = 0
    for day, n in sorted(counts.items()):
        n_rows += n
        if n_rows >= ROWS_PER_CHUNK:
            return day
    return max(counts)


def _build_chunk(
    spark: SparkSession,
    conn: psycopg.Connection,
    source: Source,
    name: str,
    entity: Entity,
    first: date,
    last: date,
    n_rows: int,
) -> Built:
    started = time.monotonic()
    n_tasks = 1 + n_rows // ROWS_PER_TASK
    spark.conf.set("spark.sql.shuffle.partitions", str(max(n_tasks, 2)))
    rows, counted = _good(spark, conn, source, name, first, last)
    _touch(spark, source.source, first, last)
    _write_events(once_a_day(conformed(rows, source, entity).repartition(n_tasks, "visitor_id", "event_on")),
                  source.source, first, last)  # fmt: skip
    n_sessions = _refresh(spark, conn, source, first, last)
    loads = _loads(spark, source.source, name, counted, first, last)
    record_loads(conn, loads)
    return Built(
        source.source, name, first, last, sum(one.n_in for one in loads), sum(one.n_loaded for one in loads),
        sum(one.n_duplicate for one in loads), sum(one.n_quarantined for one in loads), n_sessions,
        time.monotonic() - started,
    )  # fmt: skip


# --- bronze -> events ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Day:
    """Rows of bronze of a day, and how many of them are in the quarantine."""

    n_in: int
    n_quarantined: int


def _good(
    spark: SparkSession, conn: psycopg.Connection, source: Source, name: str, first: date, last: date
) -> tuple[DataFrame, dict[date, _Day]]:
    """The rows that the gate let through, mended ones laid over, and what each day counts."""
    rows = _with_mended(spark, conn, source, name, read_bronze(spark, source, name, first, last), first, last)
    held: dict[date, int] = dict(
        conn.execute(
            sql.SQL(
                "select partition_on, count(*) from quarantine.{} "
                "where source = %s and partition_on between %s and %s and not is_mended group by partition_on"
            ).format(sql.Identifier(name)),
            (source.source, first, last),
        ).fetchall()
    )
    per_day = rows.groupBy("partition_on").agg(F.count("*").alias("n"), F.count_if("is_bad").alias("n_bad"))
    counted = {row["partition_on"]: (row["n"], row["n_bad"]) for row in per_day.collect()}
    # What a stream sets aside is marked in bronze. Of other sources the gate's quarantine alone knows all.
    unmarked = [day for day in counted.keys() | held.keys() if counted.get(day, (0, 0))[1] != held.get(day, 0)]
    if unmarked:
        aside = _quarantined(spark, conn, source, name, unmarked)
        rows = rows.join(F.broadcast(aside), QUARANTINE_KEY, "left_anti")
        kept = rows.where(F.col("partition_on").isin(unmarked) & ~F.col("is_bad"))
        n_kept = {row["partition_on"]: row["count"] for row in kept.groupBy("partition_on").count().collect()}
        for day in unmarked:
            n_gone = counted.get(day, (0, 0))[0] - n_kept.get(day, 0)
            if n_gone != held.get(day, 0):
                raise RuntimeError(
                    f"quarantine.{name} holds {held.get(day, 0)} rows of {source.source} of {day} and bronze {n_gone}: "
                    f"run python -m expectations.raw --source {source.source} --as-of {day}."
                )
    return rows.where(~F.col("is_bad")), {
        day: _Day(counted.get(day, (0, 0))[0], held.get(day, 0)) for day in days(first, last)
    }


QUARANTINE_KEY = ["partition_on", "_file", "_line"]
QUARANTINE_SCHEMA = "partition_on date, _file string, _line bigint"


def _quarantined(
    spark: SparkSession, conn: psycopg.Connection, source: Source, name: str, on: Sequence[date]
) -> DataFrame:
    query = sql.SQL(
        "select partition_on, file, line from quarantine.{} "
        "where source = %s and partition_on = any(%s) and not is_mended"
    )
    found = conn.execute(query.format(sql.Identifier(name)), (source.source, list(on))).fetchall()
    return spark.createDataFrame(found, QUARANTINE_SCHEMA)


def _with_mended(
    spark: SparkSession,
    conn: psycopg.Connection,
    source: Source,
    name: str,
    rows: DataFrame,
    first: date,
    last: date,
) -> DataFrame:
    """``rows`` with those that a person mended, and the gate accepted, in place of what they stand in for."""
    query = sql.SQL(
        "select partition_on, file, line, payload from quarantine.{} "
        "where source = %s and partition_on between %s and %s and is_mended"
    )
    found = conn.execute(query.format(sql.Identifier(name)), (source.source, first, last)).fetchall()
    if not found:
        return rows
    places = F.broadcast(spark.createDataFrame([place for *place, _ in found], QUARANTINE_SCHEMA))
    originals = rows.join(places, QUARANTINE_KEY, "left_semi").select(*rows.columns).toArrow()
    payloads = {(day, file, line): payload for day, file, line, payload in found}
    mended = spark.createDataFrame(with_mended(source.entities[name], originals, payloads), rows.schema)
    return (
        rows.join(places, QUARANTINE_KEY, "left_anti")
        .select(*rows.columns)
        .unionByName(mended.withColumn("is_bad", F.lit(False)))
    )


def _write_events(events: DataFrame, source: str, first: date, last: date) -> None:
    """Replace the source's events of the days ``first``..``last``, in one commit."""
    of_days = (
        f"source = '{source}' and known_month >= '{first.replace(day=1)}' and known_month <= '{last}' "
        f"and known_on >= '{first}' and known_on <= '{last}'"
    )
    writer = (
        events.write.format("delta")
        .mode("overwrite")
        .partitionBy(*PARTITION_BY)
        .options(**lake.properties(["event_on", "known_on"]))
        .option("replaceWhere", of_days)
    )
    retried(lambda: writer.save(spark_uri(events_uri())))


def _loads(
    spark: SparkSession, source: str, name: str, counted: dict[date, _Day], first: date, last: date
) -> list[LoadCount]:
    """``ops.load_audit`` of the days: loaded is what the lake holds of them now."""
    events = _events_known(spark, source, first, last)
    content = F.xxhash64(*(column for column in events.columns if column != "known_month")).cast("decimal(38,0)")
    loaded = {
        row["known_on"]: (row["n"], str(row["checksum"]))
        for row in events.groupBy("known_on").agg(F.count("*").alias("n"), F.sum(content).alias("checksum")).collect()
    }
    counts = []
    for day, one in counted.items():
        n_loaded, checksum = loaded.get(day, (0, "0"))
        n_duplicate = one.n_in - one.n_quarantined - n_loaded
        counts.append(LoadCount(source, name, day, one.n_in, n_loaded, n_duplicate, one.n_quarantined, checksum))
    return counts


def _events_known(spark: SparkSession, source: str, first: date, last: date) -> DataFrame:
    in_months = F.col("known_month").between(first.replace(day=1), last)
    return read_events(spark).where((F.col("source") == source) & in_months & F.col("known_on").between(first, last))


# --- events -> sessions --------------------------------------------------------------------------


def _visitor_days(events: DataFrame) -> DataFrame:
    return events.select("source", "visitor_id", F.col("event_on").alias("session_on"))


def _days_of(rows: DataFrame) -> list[date]:
    return [row["session_on"] for row in rows.select("session_on").distinct().collect()]


def _touch(spark: SparkSession, source: str, first: date, last: date) -> None:
    """Remember the visitor-days of the events that are about to be replaced: they may have none afterwards."""
    old = _visitor_days(_events_known(spark, source, first, last)).distinct()
    if lake.exists(events_uri()) and not old.isEmpty():
        writer = (
            old.write.format("delta").mode("append").partitionBy("source").options(**lake.properties(["session_on"]))
        )
        retried(lambda: writer.save(spark_uri(touched_uri())))


def _touched(spark: SparkSession, source: str) -> DataFrame:
    if not lake.exists(touched_uri()):
        return spark.createDataFrame([], "source string, visitor_id string, session_on date")
    return spark.read.format("delta").load(spark_uri(touched_uri())).where(F.col("source") == source)


def _forget_touched(spark: SparkSession, source: str) -> None:
    if not _touched(spark, source).isEmpty():
        retried(lambda: spark.sql(f"delete from delta.`{spark_uri(touched_uri())}` where source = '{source}'"))


def _refresh(spark: SparkSession, conn: psycopg.Connection, source: Source, first: date, last: date) -> int:
    """Make the sessions of the touched visitor-days anew, in the lake and in Postgres; how many there are."""
    before = _touched(spark, source.source)
    touched = before.unionByName(_visitor_days(_events_known(spark, source.source, first, last))).distinct()
    touched = touched.persist(StorageLevel.DISK_ONLY)
    on = _days_of(touched)
    if not on:
        return 0
    happened = read_events(spark).where((F.col("source") == source.source) & in_days("event_on", on))
    versions = happened.withColumnRenamed("event_on", "session_on").join(touched, VISITOR_DAY, "left_semi")
    made = of_versions(versions.withColumnRenamed("session_on", "event_on"))
    staged = _stage(spark, source.source, made, before, on)
    _merge(spark, source.source, staged, touched, on)
    n_sessions = _copy(conn, source)
    touched.unpersist()
    return n_sessions


def _stage(spark: SparkSession, source: str, made: DataFrame, before: DataFrame, on: Sequence[date]) -> DataFrame:
    """Write the sessions made anew, and a row without ``session_id`` for each visitor-day that has none any more."""
    uri = spark_uri(staged_uri(source))
    writer = made.write.format("delta").mode("overwrite").options(**lake.properties(["session_on"]))
    writer.save(uri)
    staged = spark.read.format("delta").load(uri)
    if not before.isEmpty():
        gone = before.distinct().join(staged, VISITOR_DAY, "left_anti")
        nothing = {name: F.lit(None) for name in COLUMNS if name not in VISITOR_DAY}
        gone.withColumns(nothing).select(
            *(F.col(name).cast(staged.schema[name].dataType) for name in COLUMNS)
        ).write.format("delta").mode("append").save(uri)
    return spark.read.format("delta").load(uri).where(F.col("session_id").isNotNull())


def _merge(spark: SparkSession, source: str, staged: DataFrame, touched: DataFrame, on: Sequence[date]) -> None:
    """Merge the staged sessions of the touched visitor-days into the lake, and delete those that are no more."""
    uri = spark_uri(sessions_uri())
    if not lake.exists(sessions_uri()):
        empty = spark.createDataFrame([], SCHEMA).write.format("delta").partitionBy("source", "session_month")
        empty.options(**lake.properties(["session_on", "day_known_on"])).mode("ignore").save(uri)
    there = read_sessions(spark).where((F.col("source") == source) & in_days("session_on", on))
    gone = there.join(touched, VISITOR_DAY, "left_semi").join(staged, [*VISITOR_DAY, "session_id"], "left_anti")
    changes = staged.withColumn("is_gone", F.lit(False)).unionByName(gone.withColumn("is_gone", F.lit(True)))
    changes.createOrReplaceTempView("session_changes")
    months = ", ".join(f"'{month}'" for month in sorted({day.replace(day=1) for day in on}))
    retried(
        lambda: spark.sql(
            f"""
            merge into delta.`{uri}` as there using session_changes as new
            on there.source = '{source}' and there.session_month in ({months})
              and there.session_on = new.session_on and there.visitor_id = new.visitor_id
              and there.session_id = new.session_id
            when matched and new.is_gone then delete
            when matched then update set {", ".join(f"{name} = new.{name}" for name in COLUMNS)}
            when not matched and not new.is_gone
              then insert ({", ".join(COLUMNS)}) values ({", ".join(f"new.{name}" for name in COLUMNS)})
            """
        )
    )


def _copy(conn: psycopg.Connection, source: Source) -> int:
    """Replace the staged visitor-days in ``raw_<source>.sessions``; rows inserted."""
    table = sql.Identifier(source.raw_schema, "sessions")
    names = list(SESSIONS)
    conn.execute(sql.SQL("create temp table staged on commit drop as select * from {} with no data").format(table))
    for rows in lake.scan(DeltaTable(staged_uri(source.source)), [], names):
        copy_table(conn, "staged", rows)
    conn.execute("analyze staged")
    conn.execute(
        sql.SQL(
            """delete from {} as there using (select distinct visitor_id, session_on from staged) as new
               where there.session_on = new.session_on and there.visitor_id = new.visitor_id"""
        ).format(table)
    )
    inserted = conn.execute(
        sql.SQL("insert into {} ({names}) select {names} from staged where session_id is not null").format(
            table, names=sql.SQL(", ").join(map(sql.Identifier, names))
        )
    ).rowcount
    record_touched(conn, source.source, "session_days", sql.SQL("select session_on::text from staged"))
    conn.execute("drop table staged")
    return inserted


def _n_landed(found: Sequence[Source], first: date, last: date) -> int:
    """Rows that were landed on the days, of all the sources."""
    range_of_days = list(days(first, last))
    with connect("loader") as conn:
        return sum(n for source in found for n, _ in landed(conn, source, range_of_days).values())


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when all sessions are up to date, 1 with the reason on stderr when they are not."""
    parser = argparse.ArgumentParser(prog="python -m spark_jobs.sessions", description=__doc__.split("\n")[0])
    add_range(parser)
    args = parser.parse_args(argv)
    check_range(parser, args)
    try:
        found = [source for source in map(load_source, args.source) if entity_of_events(source)]
        if not found:
            print("No source has events: nothing to do.")
            return 0
        spark = session("emporium-sessions", is_long=_n_landed(found, args.first, args.as_of) > LONG_ROWS)
        for source in found:
            for one in build(spark, source, args.first, args.as_of):
                print(
                    f"{one.source}.{one.entity} {one.first}..{one.last}: {one.n_in} in = {one.n_loaded} loaded + "
                    f"{one.n_duplicate} duplicate + {one.n_quarantined} quarantined; {one.n_sessions} sessions made "
                    f"anew, {one.seconds:.1f} s",
                    flush=True,
                )
        spark.stop()
    except (ValueError, RuntimeError, PySparkException) as error:
        # Spark appends its query plan, hundreds of lines.
        print(f"sessions: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except psycopg.OperationalError as error:
        print(f"The warehouse does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
