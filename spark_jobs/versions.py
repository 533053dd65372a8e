"""Point-in-time reading of version tables: which version of a key held as of which cutoff.

A consumer as of c sees versions with ``known_on <= c`` and, per key, the newest by
``(known_at, known_on)``. A version that is ever the newest is so for one interval of days: from its
``known_on`` until the first ``known_on`` of a newer version. One window over the versions therefore answers
the question for every cutoff at once, and rows are multiplied by cutoffs only after they were aggregated.

Cutoffs are numbered 0, 1, ... in order of time; ``first_cutoff`` and ``last_cutoff`` (both included) say for
which of them a row holds.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import date

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from include import lake
from include.dates import days

SCHEMAS = {
    "orders": "marketplace string, order_id string, customer_id string, ordered_at timestamp, ordered_on date, "
    "status string, approved_at timestamp, handed_over_at timestamp, delivered_at timestamp, "
    "estimated_delivery_at timestamp, is_deleted boolean, known_at timestamp, known_on date, known_month date",
    "order_items": "marketplace string, order_id string, order_item_id int, product_id string, vendor_id string, "
    "quantity int, item_amount double, freight_amount double, ordered_on date, is_deleted boolean, "
    "known_at timestamp, known_on date, known_month date",
    "products": "marketplace string, product_id string, category string, list_price_amount double, "
    "is_deleted boolean, known_at timestamp, known_on date, known_month date",
}
"""The tables of ``lake/core``, as ``include.warehouse.export`` writes them."""

ORDER = ["order_id", "marketplace"]
ITEM = [*ORDER, "order_item_id"]
PRODUCT = ["product_id", "marketplace"]
"""Keys, the distinctive column first: Spark sorts by the first eight bytes before it compares values."""

NOT_SOLD = ("canceled", "unavailable")
"""Statuses of an order that came to nothing."""


WRITE_TRIES = 5
"""Runs of neighbouring days (a backfill) write the same tables; Delta refuses all but one at a time."""


def retried(write: Callable[[], object]) -> None:
    """``write()``, again while another writer of the table is in its way."""
    for attempt in range(1, WRITE_TRIES + 1):
        try:
            write()
            return
        except PySparkException as error:
            if "DELTA_CONCURRENT" not in str(error) or attempt == WRITE_TRIES:
                raise
            time.sleep(attempt)


def spark_uri(uri: str) -> str:
    """A table's address as Hadoop spells it (``s3a://`` for delta-rs's ``s3://``)."""
    return "s3a://" + uri.removeprefix("s3://") if uri.startswith("s3://") else uri


def read_core(spark: SparkSession, table: str, last: date) -> DataFrame:
    """Versions of ``lake/core/<table>`` known by ``last``; no rows, the same columns, where nothing was exported."""
    uri = lake.table_uri("core", table)
    if not lake.exists(uri):
        return spark.createDataFrame([], SCHEMAS[table])
    rows = spark.read.format("delta").load(spark_uri(uri))
    # The month prunes files, the day is the rule.
    return rows.where((F.col("known_month") <= F.lit(last)) & (F.col("known_on") <= F.lit(last)))


def with_validity(versions: DataFrame, key: Sequence[str]) -> DataFrame:
    """``versions`` with ``known_until``: the day from which a newer version of the key is known, null when none is.

    Versions that were never the newest (they arrived with a newer one, or after it) are dropped, and so are deleted
    ones, which do no more than end the version before.
    """
    newest_first = Window.partitionBy(*key).orderBy(F.desc("known_at"), F.desc("known_on"))
    newer = newest_first.rowsBetween(Window.unboundedPreceding, -1)
    newest = versions.withColumn("known_until", F.min("known_on").over(newer)).where(
        F.col("known_until").isNull() | (F.col("known_on") < F.col("known_until"))
    )
    if "is_deleted" not in versions.columns:
        return newest
    return newest.where(~F.coalesce("is_deleted", F.lit(False))).drop("is_deleted")


def first_cutoff_from(day: Column, cutoffs: Sequence[date]) -> Column:
    """Number of the first cutoff that is not before ``day``; null when ``day`` is after the last.

    A look-up in a literal array of days: a chain of comparisons made plans so large that compiling them took seconds.
    """
    ordered = sorted(set(cutoffs))
    numbers = [bisect_left(ordered, known_on) for known_on in days(ordered[0], ordered[-1])]
    position = F.when(day <= F.lit(ordered[0]), 0).otherwise(F.datediff(day, F.lit(ordered[0])))
    return F.get(F.expr(f"array({', '.join(map(str, numbers))})"), position)


def with_cutoffs(versions: DataFrame, key: Sequence[str], cutoffs: Sequence[date]) -> DataFrame:
    """``versions`` that are the newest of their key at some cutoff, with ``first_cutoff`` and ``last_cutoff``."""
    n_cutoffs = len(set(cutoffs))
    last = F.coalesce(first_cutoff_from(F.col("known_until"), cutoffs), F.lit(n_cutoffs)) - 1
    return (
        with_validity(versions, key)
        .withColumns({"first_cutoff": first_cutoff_from(F.col("known_on"), cutoffs), "last_cutoff": last})
        .where(F.col("first_cutoff") <= F.col("last_cutoff"))
        .drop("known_until")
    )


def at_cutoffs(rows: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """One row per row and cutoff for which it holds, with ``cutoff`` (its number) and ``as_of`` (its day)."""
    as_of = F.array(*(F.lit(cutoff) for cutoff in sorted(set(cutoffs))))
    return (
        rows.withColumn("cutoff", F.explode(F.sequence("first_cutoff", "last_cutoff")))
        .withColumn("as_of", F.get(as_of, F.col("cutoff")))
        .drop("first_cutoff", "last_cutoff")
    )


def known_orders(orders: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Orders as they stood at the cutoffs, with ``is_sold``. Grain: marketplace, order_id, first_cutoff.

    An order dated after a cutoff has not happened by then, whatever a source says it knew.
    """
    happened = first_cutoff_from(F.col("ordered_on"), cutoffs)
    return (
        with_cutoffs(orders, ORDER, cutoffs)
        .withColumns(
            {"first_cutoff": F.greatest("first_cutoff", happened), "is_sold": ~F.col("status").isin(*NOT_SOLD)}
        )
        .where(happened.isNotNull() & (F.col("first_cutoff") <= F.col("last_cutoff")))
        .drop("known_at", "known_on", "known_month")
    )


def known_lines(orders: DataFrame, order_items: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Order items with their order's state, where both are known. Grain: marketplace, order_id, item, first_cutoff.

    ``orders`` is the result of ``known_orders``. An item whose order is not known yet, is not there.
    """
    # Hashed by order once: the window by item and the join with the orders both use it.
    items = with_cutoffs(order_items.repartition(*ORDER), ITEM, cutoffs).select(
        *ITEM,
        "product_id",
        "vendor_id",
        "quantity",
        money("item_amount").alias("item_money"),
        money("freight_amount").alias("freight_money"),
        F.col("first_cutoff").alias("item_first"),
        F.col("last_cutoff").alias("item_last"),
    )
    return common_cutoffs(orders.join(items, ORDER), "item")


def common_cutoffs(joined: DataFrame, prefix: str) -> DataFrame:
    """``joined`` where its cutoffs and those of the joined side (``<prefix>_first``, ``<prefix>_last``) overlap."""
    first, last = f"{prefix}_first", f"{prefix}_last"
    return (
        joined.withColumns(
            {"first_cutoff": F.greatest("first_cutoff", first), "last_cutoff": F.least("last_cutoff", last)}
        )
        .where(F.col("first_cutoff") <= F.col("last_cutoff"))
        .drop(first, last)
    )


def money(column: str) -> Column:
    """An amount as a whole number of 1/10,000: sums are exact, so they do not depend on the order of the tasks."""
    return F.round(F.col(column) * 10_000).cast("long")


def amount(ten_thousandths: Column) -> Column:
    """Back from ``money`` to currency units, double."""
    return ten_thousandths / F.lit(10_000.0)


def micros_between(start: str, end: str) -> Column:
    """Microseconds from ``start`` to ``end``, a whole number for the same reason."""
    return F.unix_micros(F.col(end)) - F.unix_micros(F.col(start))


MICROS_PER_DAY = 86_400_000_000.0


def is_late() -> Column:
    """Delivered on a later day than the estimate's day; false while either is unknown."""
    late = F.to_date("delivered_at") > F.to_date("estimated_delivery_at")
    return F.coalesce(late, F.lit(False))


def in_last(n_days: int, column: str) -> Column:
    """Whether a date lies in the ``n_days`` days that end on ``as_of``, that day included."""
    age = F.datediff("as_of", F.col(column))
    return (age >= 0) & (age < n_days)


def n_where(condition: Column) -> Column:
    """How many rows satisfy ``condition``; nulls do not."""
    return F.count(F.when(condition, True)).cast("int")
