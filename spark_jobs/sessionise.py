"""What a session is: pure functions from events to sessions, as they are now and as they were known at cutoffs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs.events import newest
from spark_jobs.versions import first_cutoff_from, n_where, with_cutoffs

SILENCE_MICROS = 30 * 60 * 1_000_000
"""A visitor silent for 30 minutes starts a new session; so do midnight UTC and another campaign."""

BOT_EVENTS_PER_MINUTE = 60
BOT_EVENTS_PER_DAY = 500
"""More than this within any 60 seconds, or this many in a day with neither a cart nor a purchase, is no person."""

VISITOR_DAY = ["visitor_id", "session_on", "source"]

SCHEMA = (
    "session_id string, source string, marketplace string, visitor_id string, customer_id string, session_on date, "
    "started_at timestamp, ended_at timestamp, n_events int, n_product_views int, n_cart_adds int, n_purchases int, "
    "campaign string, is_bot boolean, known_at timestamp, day_known_on date, session_month date"
)
COLUMNS = [part.split()[0] for part in SCHEMA.split(", ")]


def sessions(events: DataFrame, by: Sequence[str] = ()) -> DataFrame:
    """Grain: VISITOR_DAY, session_id, ``by``. Sessions of events (``events.SCHEMA``), of which each is there once.

    ``by`` names further columns that separate what belongs together. A session belongs to the customer who was logged
    in last, to nobody (null) when nobody was. ``is_bot`` holds for all of a visitor's day.
    """
    day = [*VISITOR_DAY, "marketplace", *by]
    dated = events.withColumnRenamed("event_on", "session_on")
    in_order = Window.partitionBy(*day).orderBy("event_at", "event_id")
    micros = F.unix_micros("event_at")
    is_silence = micros - F.lag(micros).over(in_order) >= SILENCE_MICROS
    campaign_before = F.last("campaign", ignorenulls=True).over(in_order.rowsBetween(Window.unboundedPreceding, -1))
    is_other_campaign = F.col("campaign").isNotNull() & ~F.col("campaign").eqNullSafe(campaign_before)
    is_burst = micros - F.lag(micros, BOT_EVENTS_PER_MINUTE).over(in_order) < 60_000_000
    moment = F.struct("event_at", "event_id")
    per_visit = (
        dated.withColumns(
            {
                "is_first": F.coalesce(is_silence, F.lit(True)) | is_other_campaign,
                "is_inhuman": F.col("is_bot_agent") | F.coalesce(is_burst, F.lit(False)),
            }
        )
        .withColumn("visit", F.sum(F.col("is_first").cast("int")).over(in_order))
        .groupBy(*day, "visit")
        .agg(
            F.min(moment).alias("first"),
            F.max("event_at").alias("ended_at"),
            F.max_by("customer_id", F.when(F.col("customer_id").isNotNull(), moment)).alias("customer_id"),
            F.count("*").cast("int").alias("n_events"),
            n_where(F.col("event_type") == "view").alias("n_product_views"),
            n_where(F.col("event_type") == "cart").alias("n_cart_adds"),
            n_where(F.col("event_type") == "purchase").alias("n_purchases"),
            F.max("campaign").alias("campaign"),
            F.max("is_inhuman").alias("is_inhuman"),
            F.max("known_at").alias("known_at"),
        )
    )
    whole_day = Window.partitionBy(*day)
    buys_nothing = F.sum(F.col("n_cart_adds") + F.col("n_purchases")).over(whole_day) == 0
    is_many = F.sum("n_events").over(whole_day) > BOT_EVENTS_PER_DAY
    # The day is in it: an event's id is known by its visitor and day only.
    identity = F.concat_ws("|", "marketplace", "visitor_id", F.col("session_on").cast("string"), "first.event_id")
    return per_visit.select(
        F.md5(identity.cast("binary")).alias("session_id"),
        "source",
        "marketplace",
        "visitor_id",
        "customer_id",
        "session_on",
        F.col("first.event_at").alias("started_at"),
        "ended_at",
        "n_events",
        "n_product_views",
        "n_cart_adds",
        "n_purchases",
        "campaign",
        (F.max("is_inhuman").over(whole_day) | (is_many & buys_nothing)).alias("is_bot"),
        "known_at",
        *by,
    )


def of_versions(versions: DataFrame) -> DataFrame:
    """Sessions as they are now, in ``SCHEMA``, of all versions of the events of whole visitor-days.

    ``day_known_on`` is the last day on which anything about the visitor's day arrived.
    """
    whole_day = Window.partitionBy("visitor_id", "event_on", "source")
    dated = versions.withColumn("day_known_on", F.max("known_on").over(whole_day))
    made = sessions(newest(dated), by=["day_known_on"])
    return made.withColumn("session_month", F.trunc("session_on", "month").cast("date")).select(*COLUMNS)


# --- as of cutoffs -------------------------------------------------------------------------------


def sessions_at_cutoffs(made: DataFrame, events: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Sessions as what was known at the cutoffs makes them, with ``first_cutoff`` and ``last_cutoff``.

    ``made`` are the sessions of now. They hold at every cutoff from their day on where all of the visitor's day was
    known by the first of these. Late events may join sessions of the other days (``is_unsettled``), or cut them, so
    those are made anew of ``events`` for each cutoff.
    """
    unsettled = made.where(is_unsettled(cutoffs)).select(*VISITOR_DAY).distinct()
    settled = made.where(~is_unsettled(cutoffs) & (F.col("session_on") <= F.lit(max(cutoffs))))
    again = events.withColumnRenamed("event_on", "session_on").join(unsettled, VISITOR_DAY, "left_semi")
    columns = [*(name for name in COLUMNS if name not in ("day_known_on", "session_month")), "first_cutoff",
               "last_cutoff"]  # fmt: skip
    first = first_cutoff_from(F.col("session_on"), cutoffs)
    last = F.lit(len(set(cutoffs)) - 1)
    return (
        settled.withColumns({"first_cutoff": first, "last_cutoff": last})
        .select(*columns)
        .unionByName(sessions(by_cutoff(again, cutoffs), by=["first_cutoff", "last_cutoff"]).select(*columns))
    )


def is_unsettled(cutoffs: Sequence[date]) -> Column:
    """Whether something about a session's visitor-day became known after the first cutoff from the day on."""
    known = first_cutoff_from(F.col("day_known_on"), cutoffs)
    happened = first_cutoff_from(F.col("session_on"), cutoffs)
    return (F.col("session_on") <= F.lit(max(cutoffs))) & F.coalesce(known != happened, F.lit(True))


def by_cutoff(events: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Events, repeated for each cutoff at which they were known: ``first_cutoff`` and ``last_cutoff`` are that one."""
    happened = first_cutoff_from(F.col("session_on"), cutoffs)
    key = [*VISITOR_DAY, "event_id"]
    state = F.explode(F.sequence(F.greatest("first_cutoff", happened), "last_cutoff"))
    return (
        with_cutoffs(events, key, cutoffs)
        .where(happened <= F.col("last_cutoff"))
        .withColumn("state", state)
        .withColumns({"first_cutoff": F.col("state"), "last_cutoff": F.col("state")})
        .drop("state")
        .withColumnRenamed("session_on", "event_on")
    )
