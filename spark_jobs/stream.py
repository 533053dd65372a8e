"""Streams to bronze: ``python -m spark_jobs.stream --source S --as-of D [--from D0] [--full-refresh]``.

Takes the files that arrived (``include.ingest.connectors.stream``) and lets Structured Streaming bring their lines to
bronze: one query per entity, ``availableNow``, from its checkpoint on. Rows are parsed, pseudonymised and judged on the
way. Sources that are no streams are passed over. A run that is killed is healed by the same run again: a file counts
once the ledger has it, Spark's checkpoint knows which pieces a batch had, and Delta which batches it has.

``--full-refresh`` forgets the checkpoint and brings every piece of the spool again; a day that maintenance took from
it stays in bronze as it is. Bronze is the same afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from psycopg import sql
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from include import lake
from include.dates import days
from include.ingest import bronze, drift
from include.ingest.arguments import add_range, check_range
from include.ingest.connectors import connector
from include.ingest.connectors.stream import Stream, expected, pieces_folder, spool, state_folder, texts
from include.ingest.extract import cleaned
from include.ingest.files import IN_COLUMN
from include.ingest.pseudonym import EMAIL, MASK, mask_emails
from include.ingest.sources import Column as Declared
from include.ingest.sources import Entity, Source, load_source
from include.ingest.tables import LINE_PARSES, lock
from include.settings import ROOT
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect
from spark_jobs.row_rules import TYPED, broken, typed, with_typed
from spark_jobs.session import session
from spark_jobs.versions import spark_uri

TRIGGER_BYTES = 2 * 2**30
"""What one micro-batch takes: it streams through, so this bounds what a killed run does again, not memory."""

MANY_BROKEN = 5_000
"""Lines that are no rows whose text is held at once."""

LONE_SURROGATE = (
    r"(?<!\\)(?:\\\\)*(?:\\u[dD][89abAB]\w\w(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]\w\w)\\u[dD][c-fC-F]\w\w)"
)
"""As JSON escapes it. No text can hold one; Java would make it a question mark."""

FRACTION = r"[:\[,]\s*+-?\d++[.eE](?<!\d:\d\d[.])"
"""Every line with such a number has it; the seconds of a time within a string are none.

It begins with a class: with an alternative there, looking for it took a third of all the time.
"""

FRACTIONS = (
    r'\G((?:[^"0-9-]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?(?:0|[1-9]\d*+)(?![\d.eE]))*+)'
    r"(-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][+-]?\d++)?)(?=[\s,}\]])"
)
"""What stands before a number with a fraction or exponent (whole strings and integers among it), and the number. Every
repetition is possessive, so that no line, however long, needs a deep stack."""

END = "the end of the line"
LINES = "array<map<string,string>>"
STRICT = {"allowNonNumericNumbers": "false", "allowSingleQuotes": "false"}
# As EMAIL, but tried only where a word begins: Java's engine would take the square of a long word's length.
EMAIL_JAVA = r"(?<![^\s,;:<>\"'()=])" + EMAIL


# --- rows, from lines --------------------------------------------------------------------------------


def rows(lines: DataFrame, source: Source, entity: Entity, known: tuple[str, ...] | None = None) -> DataFrame:
    """Bronze rows of the pieces' lines; grain: a line.

    ``lines``: ``value`` (a piece's line, see ``pieces_folder``) and ``batch``. The result has ``bronze.stored(entity)``
    and ``_rules``, the critical rules that a row breaks, ``_warned``, the others, both null where there are none; and
    ``_extra``, what the line has beyond the YAML: names, and under ``schema_policy: evolve`` the values of new ones.
    ``known``: names that were there from the first landing on; with ``schema_policy: quarantine`` a row with a value
    under any other name breaks ``<name>_is_unknown``; None: there was no landing yet.
    """
    parts = F.split("value", "\t", 4)
    parsed = (
        lines.select(
            parts[0].cast("date").alias("partition_on"),
            parts[1].alias("_file"),
            parts[2].cast("bigint").alias("_line"),
            parts[3].alias("text"),
            F.col("batch").alias("_batch"),
            # Of the bytes as they came: split() would have mended them.
            F.is_valid_utf8("value").alias("is_text"),
        )
        # As strings they stay as they were sent: Spark reads numbers as doubles, 12345678.5 as 1.23456785E7.
        .withColumn(
            "exact",
            F.when(F.col("text").rlike(FRACTION), F.regexp_replace("text", FRACTIONS, '$1"$2"')).otherwise(
                F.col("text")
            ),
        )
        # Within brackets, and with an end of our own: only so is a line wrong that goes on after its object.
        .withColumn(
            "parsed", F.from_json(F.concat(F.lit("["), "exact", F.lit(f',{{"":"{END}"}}]')), LINES, STRICT)
        )
    )  # fmt: skip
    is_object = (F.size("parsed") == 2) & F.col("parsed")[0].isNotNull() & (F.col("parsed")[1][""] == END)
    fields = parsed.withColumn(
        "object", F.when(F.col("is_text") & F.coalesce(is_object, F.lit(False)), F.col("parsed")[0])
    )
    named = entity.source_columns
    # try_element_at: a [] is thought to be cheap, and would be looked up again for each mention.
    values = {name: F.nullif(F.try_element_at("object", F.lit(of)), F.lit("")) for name, of in named.items()}
    found = fields.select(
        "partition_on", "_file", "_line", "_batch", "text", "is_text", "object",
        *(value.alias(name) for name, value in values.items()),
    )  # fmt: skip
    nul = F.coalesce(
        *(F.when(F.col(name).contains("\0"), F.lit(f"a NUL character{IN_COLUMN}{of}")) for name, of in named.items())
    )
    error = (
        F.when(~F.col("is_text"), F.lit("not UTF-8 text"))
        .when(F.col("object").isNull(), F.lit("not a JSON object"))
        .when(F.col("text").contains("\\u0000") & nul.isNotNull(), nul)
        .when(
            F.col("text").contains("\\u") & F.col("text").rlike(LONE_SURROGATE),
            F.lit("half a character (a lone surrogate)"),
        )
    )
    extra = _extra(entity, known)
    judged = found.withColumn("_error", error).select(
        *(F.when(F.col("_error").isNull(), F.col(name)).alias(name) for name in named),
        "partition_on", "_file", "_line", "_error", "_batch",
        F.when(F.col("_error").isNull(), extra).alias("_extra"),
    )  # fmt: skip
    clean = judged.withColumns({name: _clean(source, column, F.col(name)) for name, column in entity.columns.items()})
    start = F.col("partition_on").cast("timestamp")
    known_at = start
    if entity.cursor:
        # What a day brings became known on that day, whatever its clock says.
        of_times = entity.columns[entity.cursor].type == "timestamptz"
        said = F.col(TYPED.format(entity.cursor)) if of_times else typed("timestamptz", F.col(entity.cursor))
        end = start + F.expr("interval 1 day - interval 1 microsecond")
        known_at = F.when(said.isNull(), start).otherwise(F.greatest(F.least(said, end), start))
    is_row = F.col("_error").isNull()
    typed_rows = with_typed(clean, entity).select(
        *named, "partition_on", known_at.alias("known_at"), "_file", "_line", "_error", "_batch", "_extra",
        F.lit(False).alias("_deleted"), F.trunc("partition_on", "month").alias("partition_month"),
        F.when(is_row, broken(entity, "critical")).alias("critical"),
        F.when(is_row, broken(entity, "warning")).alias("warning"),
    )  # fmt: skip
    return typed_rows.select(
        *bronze.stored(entity).names,
        _with_unknown(entity, _list("critical"), known).alias("_rules"),
        _list("warning").alias("_warned"),
        "_extra",
    )


def _list(names: str) -> Column:
    return F.when(F.col(names) != "", F.split(names, ","))


def _extra(entity: Entity, known: tuple[str, ...] | None) -> Column:
    named = [*entity.source_columns.values(), *entity.ignore]
    fields = F.col("object")
    n_named = sum((F.map_contains_key(fields, name).cast("int") for name in named), F.lit(0))
    has_more = F.size(fields) > n_named
    more = F.map_filter(fields, lambda name, _: ~name.isin(named))
    more = F.transform_keys(more, lambda name, _: _masked(name))

    def kept(name: Column, value: Column) -> Column:
        # A column that nobody has looked at may be of persons: only whether it has a value is kept.
        blank = F.when(F.nullif(value, F.lit("")).isNotNull(), F.lit(""))
        if entity.schema_policy != "evolve" or known is None:
            return blank
        return F.when(name.isin(list(known) or [""]), blank).otherwise(_masked(value))

    more = F.transform_values(more, kept)
    return F.when(has_more, more)


def _with_unknown(entity: Entity, rules: Column, known: tuple[str, ...] | None) -> Column:
    if entity.schema_policy != "quarantine" or known is None:
        return rules
    has_value = F.map_filter("_extra", lambda name, value: value.isNotNull() & ~name.isin(list(known) or [""]))
    names = F.transform(
        F.map_keys(has_value),
        lambda name: F.concat(F.regexp_replace(F.lower(name), "[^a-z0-9]+", "_"), F.lit("_is_unknown")),
    )
    unknown = F.when(F.size(names) > 0, names)
    return F.when(unknown.isNull(), rules).otherwise(F.concat(F.coalesce(rules, F.array()), unknown))


def _clean(source: Source, column: Declared, value: Column) -> Column:
    needs_python = column.pseudonym or column.unescape or column.upper
    if not needs_python and (column.type != "timestamptz" or source.time_zone == "UTC"):
        return _masked(value)

    def clean(values: pa.Array) -> pa.Array:
        # The key of the pseudonyms is read where the rows are, and is in no plan.
        made = cleaned(source, column, values)
        return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made

    clean.__annotations__ = {"values": pa.Array, "return": pa.Array}
    return F.arrow_udf(clean, "string")(value)


def _masked(value: Column) -> Column:
    return F.when(value.contains("@"), F.regexp_replace(value, EMAIL_JAVA, MASK.replace("$", r"\$"))).otherwise(value)


# --- the stream --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Streamed:
    """What a run brought of an entity, over the days asked for."""

    entity: str
    n_days: int
    n_rows: int
    n_broken: int
    seconds: float


def stream(
    spark: SparkSession | None, source: Source, first: date, last: date, is_full_refresh: bool = False
) -> Iterator[Streamed]:
    """Take what arrived for ``first``..``last``, bring it to bronze and record the days as landed.

    ``spark`` None starts a session. ``ValueError`` and ``RuntimeError`` say in a sentence what is wrong.
    """
    reader = connector(source)
    assert isinstance(reader, Stream)
    with connect("loader") as taking, connect("loader") as conn, ThreadPoolExecutor(1) as beside:
        # Held to the end, and not by the connection that commits what was taken.
        lock(conn, source)
        started = time.monotonic()
        starting: Future[SparkSession] | None = None
        if spark is None and reader.arrivals():
            # A JVM takes as long to start as a gigabyte takes to be read.
            starting = beside.submit(session, f"stream_{source.source}", is_long=True)
        taken = spool(reader, taking, first, last)
        print(
            f"{source.source}: took {taken.n_files} files, {taken.n_bytes / 1e6:.1f} MB, {taken.n_lines} lines, "
            f"{time.monotonic() - started:.1f} s"
        )
        if taken.waiting:
            print(f"{source.source}: {len(taken.waiting)} files wait for a manifest, first {taken.waiting[0]}")
        for name, entity in source.entities.items():
            started = time.monotonic()
            if is_full_refresh:
                _forget(source, name, reader, conn)
            if any(pieces_folder(source.source, name).glob("*/*.jsonl")):
                known = drift.known(conn, source.source, name) if _was_landed(conn, source, name) else None
                if spark is None:
                    spark = starting.result() if starting else session(f"stream_{source.source}", is_long=True)
                _bring(spark, source, name, entity, known, is_full_refresh)
            n_rows, n_broken = _settle(conn, reader, name, first, last)
            n_days = (last - first).days + 1
            yield Streamed(name, n_days, n_rows, n_broken, time.monotonic() - started)


def checkpoint(source: str, entity: str) -> Path:
    """Where Spark remembers which pieces an entity's bronze has."""
    return state_folder(source) / "checkpoint" / entity


def _bring(
    spark: SparkSession, source: Source, name: str, entity: Entity, seen: dict[str, drift.Seen] | None, is_new: bool
) -> None:
    """Everything in the spool that bronze does not have yet."""
    folder = pieces_folder(source.source, name)
    bronze.ensure(source.source, name, entity)
    uri = spark_uri(bronze.uri(source.source, name))
    kept = checkpoint(source.source, name)
    if not is_new and not kept.exists() and DeltaTable(bronze.uri(source.source, name)).file_uris():
        raise RuntimeError(
            f"Bronze of {source.source}.{name} has rows, but the checkpoint {kept} is gone: run the same with "
            "--full-refresh, which brings them again from the spool."
        )
    lines = (
        spark.readStream.format("text")
        .schema("value string")
        .option("lineSep", "\n")
        .option("maxBytesPerTrigger", TRIGGER_BYTES)
        # By default a piece a week older than the newest one is passed over.
        .option("maxFileAge", "36500d")
        .load(f"{folder}/*/*.jsonl")
        .select("value", F.regexp_extract(F.col("_metadata.file_name"), r"-(\w+)\.", 1).alias("batch"))
    )
    known = None if seen is None else tuple(name for name, one in seen.items() if one.policy is None)

    def write(batch: DataFrame, number: int) -> None:
        # The query's identity lasts as long as its checkpoint: a batch that Delta has is not written again, and the
        # first one of a new checkpoint replaces what an older one brought of the days that the spool has.
        query = json.loads((kept / "metadata").read_text())["id"]
        writer = (
            rows(batch, source, entity, known)
            .write.format("delta")
            .mode("append")
            .partitionBy(*bronze.PARTITION_BY)
            .option("mergeSchema", "true")
            .option("txnAppId", query)
            .option("txnVersion", number)
        )
        if number == 0 and DeltaTable(bronze.uri(source.source, name)).file_uris():
            there = ", ".join(f"'{day}'" for day in _spooled_days(source.source, name))
            writer = writer.mode("overwrite").option("replaceWhere", f"{bronze.DAY} in ({there})")
        writer.save(uri)

    query = (
        lines.writeStream.foreachBatch(write).option("checkpointLocation", str(kept)).trigger(availableNow=True).start()
    )
    query.awaitTermination()


def _forget(source: Source, name: str, reader: Stream, conn: psycopg.Connection) -> None:
    """Drop the checkpoint, if of each day the spool has every line that was taken, or none and bronze has them."""
    there: Counter[date] = Counter()
    for path in pieces_folder(source.source, name).glob("*/*.jsonl"):
        with open(path, "rb") as handle:
            there[date.fromisoformat(path.parent.name)] += sum(
                chunk.count(b"\n") for chunk in iter(lambda: handle.read(2**22), b"")
            )
    taken = {day: n for (entity, day), n in expected(reader, conn, date.min, date.max).items() if entity == name}
    in_bronze = _count(source.source, name, min(taken), max(taken)) if taken.keys() - there.keys() else Counter()
    for day, n in sorted(taken.items()):
        if (there[day] or in_bronze[day]) != n:
            raise RuntimeError(
                f"{source.source}.{name} cannot be brought again: of {day} {n} lines were taken, "
                f"{pieces_folder(source.source, name)} holds {there[day]} and bronze {in_bronze[day]}. Restore the "
                "folder first."
            )
    kept = checkpoint(source.source, name)
    if kept.exists():
        # Gone at once, or not at all.
        beside = kept.with_name(f".{name}.{os.getpid()}")
        kept.rename(beside)
        shutil.rmtree(beside)


def _count(source: str, name: str, first: date, last: date) -> Counter[date]:
    """Bronze's rows by business day."""
    found: Counter[date] = Counter()
    uri = bronze.uri(source, name)
    if lake.exists(uri):
        for piece in lake.scan(DeltaTable(uri), _days_filter(first, last), [bronze.DAY]):
            found.update(bronze.count_by_day(piece))
    return found


# --- what landed -------------------------------------------------------------------------------------


@dataclass
class _Found:
    """What bronze holds of an entity's days."""

    n_rows: Counter[date] = field(default_factory=Counter)
    n_broken: Counter[date] = field(default_factory=Counter)
    seen_on: dict[str, date] = field(default_factory=dict)
    """Column that the YAML does not name -> the first of the days that has it."""


def _settle(conn: psycopg.Connection, reader: Stream, name: str, first: date, last: date) -> tuple[int, int]:
    """Record the days as landed, and the text of lines that are no rows; (rows, broken lines).

    ``RuntimeError`` where bronze does not have exactly the lines that were taken.
    """
    source = reader.source
    found = _quarantine_and_count(conn, source, name, first, last)
    taken = {day: n for (entity, day), n in expected(reader, conn, first, last).items() if entity == name}
    range_of_days = list(days(first, last))
    for day in range_of_days:
        if found.n_rows[day] != taken.get(day, 0):
            raise RuntimeError(
                f"Bronze of {source.source}.{name} of {day} has {found.n_rows[day]} lines, but {taken.get(day, 0)} "
                "were taken: run the same with --full-refresh."
            )
    batches = bronze.batches(source.source, name, first, last)
    # No rows, no columns seen.
    seen_on = found.seen_on if found.n_rows.total() else None
    drift.note(conn, source, name, seen_on, last)
    conn.execute(
        sql.SQL("delete from {} where entity = %s and partition_on between %s and %s").format(
            sql.Identifier(source.raw_schema, "_landed")
        ),
        (name, first, last),
    )
    landed = pa.table(
        {
            "entity": [name] * len(range_of_days),
            "partition_on": range_of_days,
            "n_rows": [found.n_rows[day] for day in range_of_days],
            "n_broken": [found.n_broken[day] for day in range_of_days],
            "batch": [batches.get(day, bronze.NOTHING) for day in range_of_days],
        }
    )
    copy_table(conn, f"{source.raw_schema}._landed", landed)
    drift.mark(conn, source, name, seen_on, range_of_days)
    return found.n_rows.total(), found.n_broken.total()


def _quarantine_and_count(conn: psycopg.Connection, source: Source, name: str, first: date, last: date) -> _Found:
    """What bronze holds of the days; the text of its lines that are no rows goes to the quarantine."""
    found = _Found()
    conn.execute(
        # Of a day that maintenance took from the spool the text is in the quarantine alone: it stays.
        sql.SQL(
            "delete from {} where source = %s and partition_on between %s and %s and rule = %s "
            "and partition_on = any(%s)"
        ).format(sql.Identifier("quarantine", name)),
        (source.source, first, last, LINE_PARSES, _spooled_days(source.source, name)),
    )
    uri = bronze.uri(source.source, name)
    table = DeltaTable(uri) if lake.exists(uri) else None
    if table is None or "_extra" not in {one.name for one in table.schema().fields}:
        return found
    columns = ["partition_on", "_batch", "_error", "_file", "_line", "_extra"]
    errors: list[dict] = []
    for piece in lake.scan(table, _days_filter(first, last), columns, dictionaries=["_batch", "_file"]):
        found.n_rows.update(bronze.count_by_day(piece))
        of_piece = piece.filter(pc.is_valid(piece["_error"])).drop_columns("_extra")
        found.n_broken.update(bronze.count_by_day(of_piece))
        errors += of_piece.to_pylist()
        if len(errors) >= MANY_BROKEN:
            _quarantine(conn, source, name, errors)
            errors = []
        drifting = piece.filter(pc.is_valid(piece["_extra"]))
        for day, items in zip(drifting["partition_on"].to_pylist(), drifting["_extra"].to_pylist(), strict=True):
            for column, _ in items:
                found.seen_on[column] = min(day, found.seen_on.get(column, day))
    _quarantine(conn, source, name, errors)
    return found


def _spooled_days(source: str, name: str) -> list[date]:
    folder = pieces_folder(source, name)
    return [date.fromisoformat(one.name) for one in folder.iterdir()] if folder.is_dir() else []


def _days_filter(first: date, last: date) -> list[tuple]:
    months = [(bronze.MONTH, ">=", first.replace(day=1)), (bronze.MONTH, "<=", last)]
    return [*months, (bronze.DAY, ">=", first), (bronze.DAY, "<=", last)]


def _quarantine(conn: psycopg.Connection, source: Source, name: str, errors: list[dict]) -> None:
    if not errors:
        return
    places = [(one["partition_on"], one["_batch"], one["_file"], one["_line"]) for one in errors]
    text = texts(source.source, name, places)
    broken_lines = pa.table(
        {
            "source": [source.source] * len(errors),
            "file": [one["_file"] for one in errors],
            "line": [one["_line"] for one in errors],
            "rule": [LINE_PARSES] * len(errors),
            "payload": mask_emails(
                pa.array([_storable(text.get((day, file, line))) for day, _, file, line in places], pa.string())
            ),
            "partition_on": [one["partition_on"] for one in errors],
            "rules": ["{" + LINE_PARSES + "}"] * len(errors),
        }
    )
    table, names = (
        sql.Identifier("quarantine", name),
        sql.SQL(", ").join(map(sql.Identifier, broken_lines.column_names)),
    )
    conn.execute(sql.SQL("create temp table lines (like {} including defaults) on commit drop").format(table))
    copy_table(conn, "lines", broken_lines)
    # What is there already was mended: it has the text as its original.
    conn.execute(
        sql.SQL("insert into {table} ({names}) select {names} from lines on conflict do nothing").format(
            table=table, names=names
        )
    )
    conn.execute("drop table lines")


def _storable(text: str | None) -> str | None:
    """Postgres cannot hold NUL, and nobody reads a line of megabytes."""
    return None if text is None else text[:10_000].replace("\0", "�")


def _was_landed(conn: psycopg.Connection, source: Source, name: str) -> bool:
    table = sql.Identifier(source.raw_schema, "_landed")
    query = sql.SQL("select 1 from {} where entity = %s and unnamed is not null limit 1").format(table)
    try:
        return conn.execute(query, (name,)).fetchone() is not None
    except psycopg.errors.UndefinedTable as error:
        raise RuntimeError("The raw tables are missing: run python -m include.ingest prepare first.") from error


def main(argv: list[str] | None = None) -> int:
    """Bring the streams among the sources; 1 with one sentence on stderr when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m spark_jobs.stream", description=__doc__.splitlines()[0])
    add_range(parser)
    parser.add_argument("--full-refresh", action="store_true", help="bring every piece of the spool again")
    args = parser.parse_args(argv)
    check_range(parser, args)
    # Python workers import what this process imports, wherever it was started.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        streams = [source for source in map(load_source, args.source) if _is_stream(source)]
        if not streams:
            print("None of the sources is a stream: nothing to do.")
        for source in streams:
            for one in stream(None, source, args.first, args.as_of, args.full_refresh):
                print(
                    f"{source.source}.{one.entity}: {one.n_days} days, {one.n_rows} in, {one.n_broken} broken lines, "
                    f"{one.seconds:.1f} s"
                )
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    except PySparkException as error:
        print(f"Spark stopped: {str(error)[:2000]}", file=sys.stderr)
        return 1
    except psycopg.OperationalError as error:
        print(f"The warehouse does not answer: {error}", file=sys.stderr)
        return 1
    return 0


def _is_stream(source: Source) -> bool:
    from include.ingest.connectors import connector_class

    return connector_class(source.type).lands_in_spark


if __name__ == "__main__":
    sys.exit(main())
