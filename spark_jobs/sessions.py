"""Sessions out of click events, for every cutoff at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.versions import EVENT, first_cutoff_from, n_where, with_cutoffs

SILENCE = f"{30 * 60 * 1_000_000 - 1} microseconds"
"""A visitor silent for 30 minutes starts a new session, as in ``fact_session``; so does midnight UTC.

Spark joins windows that touch, so the longest silence within a session is what it wants to hear.
"""

VISITOR_DAY = ["visitor_id", "session_on", "marketplace"]


def sessions(events: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: visitor_id, marketplace, started_at, first_cutoff. Sessions as the events known by the cutoffs make them.

    A late event may join two sessions into one, so a session holds for ``first_cutoff`` to ``last_cutoff``. A session
    belongs to the customer who was logged in last, to nobody (null) when nobody was.
    """
    dated = events.withColumn("session_on", F.to_date("event_at")).where(F.col("session_on") <= F.lit(max(cutoffs)))
    moment = F.when(F.col("customer_id").isNotNull(), F.struct("event_at", "event_id"))
    return (
        by_state(dated, cutoffs)
        .groupBy(*VISITOR_DAY, "first_cutoff", "last_cutoff", F.session_window("event_at", SILENCE).alias("session"))
        .agg(
            F.max_by("customer_id", moment).alias("customer_id"),
            n_where(F.col("event_type") == "view").alias("n_product_views"),
            n_where(F.col("event_type") == "cart").alias("n_cart_adds"),
        )
        .select(
            *VISITOR_DAY,
            F.col("session.start").alias("started_at"),
            "customer_id",
            "n_product_views",
            "n_cart_adds",
            "first_cutoff",
            "last_cutoff",
        )
    )


def by_state(dated: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Events, cut so that those of a visitor's day with one ``first_cutoff`` are all that was known of it then.

    Where every event was known by the first cutoff after its day (nearly everywhere), the day has one state for all
    later cutoffs. The events of the other days are repeated for each cutoff at which they were known.
    """
    by_day = first_cutoff_from(F.col("session_on"), cutoffs)
    late = F.coalesce(first_cutoff_from(F.col("known_on"), cutoffs) != by_day, F.lit(True))
    changing = dated.where(late).select(*VISITOR_DAY).distinct().withColumn("is_changing", F.lit(True))
    states = F.when(F.col("is_changing"), F.sequence("first_cutoff", "last_cutoff")).otherwise(F.array("first_cutoff"))
    return (
        with_cutoffs(dated, EVENT, cutoffs)
        .join(changing, VISITOR_DAY, "left")
        .withColumn("state", F.explode(states))
        .withColumns(
            {
                "first_cutoff": F.col("state"),
                "last_cutoff": F.when(F.col("is_changing"), F.col("state")).otherwise(F.col("last_cutoff")),
            }
        )
        .drop("is_changing", "state")
    )
