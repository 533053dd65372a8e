"""Feature view ``user_behavior``: what a customer did, as known at each cutoff.

Orders, deliveries, order lines and sessions become *contributions*: what they add to which measure of which
customer, on which day it happened, for which cutoffs it was known. They are summed per customer and day
first and meet the cutoffs after that, in one shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.versions import (
    MICROS_PER_DAY,
    PRODUCT,
    amount,
    at_cutoffs,
    common_cutoffs,
    first_cutoff_from,
    in_last,
    is_late,
    known_lines,
    known_orders,
    micros_between,
    with_cutoffs,
)

MEASURES = (
    "n_orders",
    "n_cancelled",
    "n_items",
    "spent",
    "n_delivered",
    "n_late",
    "delivery_micros",
    "n_sessions",
    "n_product_views",
    "n_cart_adds",
)
"""What contributions add to; money in 1/10,000. All are whole numbers, so no sum depends on the order of its terms."""

MAX_CUTOFFS = 62
"""Cutoffs are bits of a bigint where distinct things are counted."""


def user_behavior(
    orders: DataFrame, order_items: DataFrame, products: DataFrame, sessions: DataFrame, cutoffs: Sequence[date]
) -> DataFrame:
    """Grain: as_of, customer_id. Customers with at least one order known by the cutoff that was not cancelled.

    ``sessions`` is the result of ``sessions.sessions_at_cutoffs``, the other frames are version tables
    (``versions.SCHEMAS``). A window of n days ends on ``as_of`` and includes it.
    Amounts are items plus freight, in the order's currency; ``n_items`` counts lines, as ``fact_order`` does. Cancelled
    and unavailable orders count in ``n_cancelled`` only.
    """
    if len(set(cutoffs)) > MAX_CUTOFFS:
        raise ValueError(f"user_behavior takes at most {MAX_CUTOFFS} cutoffs at once, not {len(set(cutoffs))}.")
    # Kept, because several contributions start from the same rows.
    of_customers = known_orders(orders, cutoffs).where(F.col("customer_id").isNotNull()).persist()
    sold = of_customers.where("is_sold")
    lines = known_lines(sold, order_items, cutoffs).persist()
    summed = by_customer(
        [
            placed(of_customers),
            delivered(sold, cutoffs),
            bought(lines),
            visited(sessions),
        ],
        cutoffs,
    )
    kinds = distinct_kinds(sold, lines, products, cutoffs)
    n_orders = F.col("n_orders")
    return summed.join(kinds, "customer_id", "left").select(
        "as_of",
        "customer_id",
        F.datediff("as_of", "last_order_on").alias("recency_days"),
        F.datediff("as_of", "first_order_on").alias("tenure_days"),
        n_orders.cast("int"),
        *(F.col(f"n_orders_{days}d").cast("int") for days in (30, 90, 180, 365)),
        amount(F.col("spent")).alias("order_amount_total"),
        amount(F.col("spent_90d")).alias("order_amount_90d"),
        amount(F.col("spent_365d")).alias("order_amount_365d"),
        (amount(F.col("spent")) / n_orders).alias("avg_order_amount"),
        F.try_divide(F.datediff("last_order_on", "first_order_on"), n_orders - 1).alias("avg_days_between_orders"),
        F.col("n_cancelled").cast("int"),
        _at_cutoff("n_categories"),
        _at_cutoff("n_marketplaces"),
        F.col("n_items").cast("int"),
        F.try_divide("delivery_micros", F.col("n_delivered") * MICROS_PER_DAY).alias("avg_delivery_days"),
        F.col("n_late").cast("int").alias("n_late_deliveries"),
        F.col("n_sessions_30d").cast("int"),
        F.col("n_sessions_90d").cast("int"),
        F.col("n_product_views_30d").cast("int"),
        F.col("n_cart_adds_30d").cast("int"),
        F.datediff("as_of", "last_session_on").alias("days_since_last_session"),
        "last_order_on",
    )


def _contributions(rows: DataFrame, happened_on: str, **measures: Column) -> DataFrame:
    """Grain: any. What ``rows`` add to which measure (0 to those not named), by customer, day and cutoffs."""
    values = [F.coalesce(measures.get(name, F.lit(0)), F.lit(0)).cast("long").alias(name) for name in MEASURES]
    return rows.select("customer_id", F.col(happened_on).alias("happened_on"), "first_cutoff", "last_cutoff", *values)


def placed(orders: DataFrame) -> DataFrame:
    """Contributions of orders placed, or cancelled."""
    is_sold = F.col("is_sold").cast("int")
    return _contributions(orders, "ordered_on", n_orders=is_sold, n_cancelled=1 - is_sold)


def delivered(sold: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Contributions of deliveries, from their own day on."""
    day = first_cutoff_from(F.to_date("delivered_at"), cutoffs)
    arrived = (
        sold.where(day.isNotNull())
        .withColumn("first_cutoff", F.greatest("first_cutoff", day))
        .where(F.col("first_cutoff") <= F.col("last_cutoff"))
    )
    return _contributions(
        arrived,
        "ordered_on",
        n_delivered=F.lit(1),
        n_late=is_late().cast("int"),
        delivery_micros=micros_between("ordered_at", "delivered_at"),
    )


def bought(lines: DataFrame) -> DataFrame:
    """Contributions of order lines."""
    spent = F.col("item_money") + F.coalesce("freight_money", F.lit(0))
    return _contributions(lines, "ordered_on", n_items=F.lit(1), spent=spent)


def visited(sessions: DataFrame) -> DataFrame:
    """Contributions of sessions in which a customer was logged in; bots that log in are left out."""
    return _contributions(
        sessions.where(F.col("customer_id").isNotNull() & ~F.col("is_bot")),
        "session_on",
        n_sessions=F.lit(1),
        n_product_views=F.col("n_product_views"),
        n_cart_adds=F.col("n_cart_adds"),
    )


def by_customer(contributions: Sequence[DataFrame], cutoffs: Sequence[date]) -> DataFrame:
    """Grain: as_of, customer_id. Sums of the measures, in all and in the windows; only customers with an order.

    ``cutoff`` is the number of ``as_of``.
    """
    together = reduce(DataFrame.unionByName, contributions)
    per_day = (
        # Everything of a customer in one place: the cutoffs are met, and summed over, without moving a row again.
        together.repartition("customer_id")
        .groupBy("customer_id", "happened_on", "first_cutoff", "last_cutoff")
        .agg(*(F.sum(name).alias(name) for name in MEASURES))
    )

    def within(days: int, name: str) -> Column:
        value = F.when(in_last(days, "happened_on"), F.col(name)).otherwise(F.lit(0))
        return F.sum(value).alias(f"{name}_{days}d")

    def day_of(function: Callable[[Column], Column], name: str) -> Column:
        return function(F.when(F.col(name) > 0, F.col("happened_on")))

    totals = ("n_orders", "n_cancelled", "n_items", "spent", "n_delivered", "n_late", "delivery_micros")
    return (
        at_cutoffs(per_day, cutoffs)
        .groupBy("customer_id", "as_of", "cutoff")
        .agg(
            *(F.sum(name).alias(name) for name in totals),
            *(within(days, "n_orders") for days in (30, 90, 180, 365)),
            *(within(days, "spent") for days in (90, 365)),
            *(within(days, "n_sessions") for days in (30, 90)),
            within(30, "n_product_views"),
            within(30, "n_cart_adds"),
            day_of(F.min, "n_orders").alias("first_order_on"),
            day_of(F.max, "n_orders").alias("last_order_on"),
            day_of(F.max, "n_sessions").alias("last_session_on"),
        )
        .where(F.col("n_orders") > 0)
    )


def distinct_kinds(sold: DataFrame, lines: DataFrame, products: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: customer_id. ``n_categories`` and ``n_marketplaces`` bought from, an array with a number per cutoff.

    A product's category is the one known by the cutoff; a product without one is not counted.
    """
    catalogue = (
        with_cutoffs(products, PRODUCT, cutoffs)
        .where(F.col("category").isNotNull())
        .select(
            *PRODUCT,
            "category",
            F.col("first_cutoff").alias("product_first"),
            F.col("last_cutoff").alias("product_last"),
        )
    )
    kinds = {
        "n_categories": (common_cutoffs(lines.join(catalogue, PRODUCT), "product"), "category"),
        "n_marketplaces": (sold, "marketplace"),
    }
    # The cutoffs for which a row holds, as bits: several rows of a kind then count once, whatever their overlap.
    bits = F.expr("shiftleft(shiftleft(1L, last_cutoff - first_cutoff + 1) - 1L, first_cutoff)")
    together = reduce(
        DataFrame.unionByName,
        (
            rows.select(
                "customer_id",
                F.lit(name).alias("count"),
                F.col(column).alias("kind"),
                bits.alias("bits"),
            )
            for name, (rows, column) in kinds.items()
        ),
    )
    per_kind = (
        together.repartition("customer_id").groupBy("customer_id", "count", "kind").agg(F.bit_or("bits").alias("bits"))
    )
    return per_kind.groupBy("customer_id").agg(
        *(
            F.array(
                *(
                    F.count(F.when((F.col("count") == name) & (F.getbit("bits", F.lit(number)) == 1), True))
                    for number in range(len(set(cutoffs)))
                )
            ).alias(name)
            for name in kinds
        )
    )


def _at_cutoff(name: str) -> Column:
    value = F.get(F.col(name), F.col("cutoff"))
    return F.coalesce(value, F.lit(0)).cast("int").alias(name)
