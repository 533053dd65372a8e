"""``lake/silver/events``: what visitors did, typed, out of the strings of bronze.

The ``events:`` block of an entity's YAML says which SQL over its typed columns makes which column of an event. An event
is known by its id within its visitor's day (UTC): what comes again there replaces what came before; the same id of
another visitor, or of another day, is another event. There is one row for an event and business day on which
something about it arrived, as there is in the raw tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from include import lake
from include.ingest import bronze
from include.ingest.sources import Entity, Source
from spark_jobs.row_rules import typed
from spark_jobs.versions import spark_uri

SCHEMA = (
    "source string, marketplace string, event_id string, visitor_id string, customer_id string, event_type string, "
    "product_id string, campaign string, is_bot_agent boolean, event_at timestamp, event_on date, known_at timestamp, "
    "known_on date, known_month date"
)
PARTITION_BY = ["source", "known_month"]

EVENT = ["visitor_id", "event_on", "event_id", "source"]
"""What makes an event; with ``known_on`` the key of the table. Rows are sorted by it: the source parts none of them."""

BOT_WORDS = (
    "bot", "crawl", "spider", "slurp", "mediapartners", "externalhit", "preview", "headless", "phantomjs", "selenium",
    "lighthouse", "pingdom", "monitor", "scrapy", "curl/", "wget", "python-", "java/", "go-http-client", "httpclient",
)  # fmt: skip
NOT_BOTS = ("cubot",)
"""What a user agent says (in lower case) when nobody is looking, and a telephone's name that sounds like it.

Words, no regular expression: that took six times as long as all else that is done to an event.
"""

MAX_RANGES = 40
"""Ranges of days in one filter: more of them cost more to plan than the files between them cost to read."""


def events_uri() -> str:
    """Address of the table."""
    return lake.table_uri("silver", "events")


def read_events(spark: SparkSession) -> DataFrame:
    """``lake/silver/events``; no rows, the same columns, where nothing was ever written."""
    if not lake.exists(events_uri()):
        return spark.createDataFrame([], SCHEMA)
    return spark.read.format("delta").load(spark_uri(events_uri()))


def read_bronze(spark: SparkSession, source: Source, name: str, first: date, last: date) -> DataFrame:
    """The entity's bronze rows of the days ``first``..``last``, with ``is_bad`` where they were marked as they landed.

    Columns that the table does not have (yet) are null. No rows where nothing was landed.
    """
    uri = bronze.uri(source.source, name)
    columns = list(source.entities[name].columns)
    if not lake.exists(uri):
        named = "".join(f"`{column}` string, " for column in columns)
        empty = (
            f"{named}partition_on date, known_at timestamp, _file string, _line bigint, _error string, is_bad boolean"
        )
        return spark.createDataFrame([], empty)
    rows = spark.read.format("delta").load(spark_uri(uri))
    absent = {column: F.lit(None).cast("string") for column in columns if column not in rows.columns}
    is_bad = F.col("_error").isNotNull()
    if "_rules" in rows.columns:
        is_bad = is_bad | (F.coalesce(F.size("_rules"), F.lit(0)) > 0)
    months = F.col("partition_month").between(first.replace(day=1), last)
    return (
        rows.where(months & F.col("partition_on").between(first, last))
        .withColumns(absent)
        .select(*(F.col(f"`{column}`") for column in columns), "partition_on", "known_at", "_file", "_line",
                "_error", is_bad.alias("is_bad"))
    )  # fmt: skip


def conformed(rows: DataFrame, source: Source, entity: Entity) -> DataFrame:
    """Bronze rows as events, in ``SCHEMA``. Rows that the gate would not let through must be gone already."""
    assert entity.events is not None
    typed_rows = rows.select(
        *(typed(column.type, F.col(f"`{name}`")).alias(name) for name, column in entity.columns.items()),
        F.col("known_at").alias("_known_at"),
        F.col("partition_on").alias("_known_on"),
        F.concat_ws(":", "_file", "_line").alias("_place"),
    )

    def made(name: str, kind: str = "string") -> Column:
        return F.expr(entity.events[name]).cast(kind) if name in entity.events else F.lit(None).cast(kind)

    def needed(name: str, kind: str = "string") -> Column:
        why = F.concat(F.lit(f"{source.source}: events.{name} is null in "), "_place", F.lit(": a rule must refuse it"))
        return F.coalesce(made(name, kind), F.raise_error(why).cast(kind))

    def text(name: str) -> Column:
        return F.nullif(F.trim(made(name)), F.lit(""))

    shaped = typed_rows.select(
        needed("event_id").alias("event_id"),
        needed("visitor_id").alias("visitor_id"),
        needed("event_type").alias("event_type"),
        needed("event_at", "timestamp").alias("event_at"),
        text("customer_id").alias("customer_id"),
        text("product_id").alias("product_id"),
        text("campaign").alias("campaign"),
        is_bot_agent(made("user_agent")).alias("is_bot_agent"),
        F.col("_known_at").alias("known_at"),
        F.col("_known_on").alias("known_on"),
    )
    return shaped.select(
        F.lit(source.source).alias("source"),
        F.lit(source.marketplace).alias("marketplace"),
        "event_id",
        "visitor_id",
        "customer_id",
        "event_type",
        "product_id",
        "campaign",
        "is_bot_agent",
        "event_at",
        F.to_date("event_at").alias("event_on"),
        "known_at",
        "known_on",
        F.trunc("known_on", "month").alias("known_month"),
    )


def is_bot_agent(user_agent: Column) -> Column:
    """Whether a user agent says that it is a robot; false where there is none."""
    said = F.lower(user_agent)
    for word in NOT_BOTS:
        said = F.when(said.contains(word), F.replace(said, F.lit(word), F.lit(""))).otherwise(said)
    found = F.lit(False)
    for word in BOT_WORDS:
        found = found | said.contains(word)
    return F.coalesce(found, F.lit(False))


def once_a_day(events: DataFrame) -> DataFrame:
    """Grain: ``EVENT``, known_on. Of an event that came several times on a day, the newest; then the greatest content.

    Nothing depends on the order in which rows arrived, or on the files that brought them.
    """
    content = ("event_at", "event_type", "customer_id", "product_id", "campaign", "is_bot_agent")
    best_first = Window.partitionBy(*EVENT, "known_on").orderBy(
        F.desc("known_at"), *(F.desc_nulls_last(name) for name in content)
    )
    return events.withColumn("nth", F.row_number().over(best_first)).where("nth = 1").drop("nth")


def newest(events: DataFrame) -> DataFrame:
    """Grain: ``EVENT``. The newest version of each event."""
    newest_first = Window.partitionBy(*EVENT).orderBy(F.desc("known_at"), F.desc("known_on"))
    return events.withColumn("nth", F.row_number().over(newest_first)).where("nth = 1").drop("nth")


def in_days(column: str, days: Iterable[date]) -> Column:
    """Whether ``column`` is among ``days``, or in a gap between them: as few ranges as let Delta skip files."""
    ranges = _ranges(sorted(set(days)))
    found = F.lit(False)
    for first, last in ranges:
        found = found | F.col(column).between(first, last)
    return found


def _ranges(days: Sequence[date]) -> list[tuple[date, date]]:
    """Ranges that hold all ``days`` (sorted), at most ``MAX_RANGES``: the widest gaps stay gaps."""
    gaps = sorted(((after - day).days, day) for day, after in pairwise(days))
    cuts = {day for width, day in gaps[-(MAX_RANGES - 1) :] if width > 1}
    found: list[tuple[date, date]] = []
    for day in days:
        if found and found[-1][1] not in cuts:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
