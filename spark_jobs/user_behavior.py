"""Feature view ``user_behavior``: what a customer did, as known at each cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.sessions import sessions
from spark_jobs.versions import (
    MICROS_PER_DAY,
    PRODUCT,
    amount,
    at_cutoffs,
    common_cutoffs,
    in_last,
    is_late,
    known_lines,
    known_orders,
    micros_between,
    n_where,
    with_cutoffs,
)

KEY = ["customer_id", "as_of"]
"""Everything is hashed by customer once; grouping by the key, and joining on it, then moves no rows."""


def user_behavior(
    orders: DataFrame, order_items: DataFrame, products: DataFrame, events: DataFrame, cutoffs: Sequence[date]
) -> DataFrame:
    """Grain: as_of, customer_id. Customers with at least one order known by the cutoff that was not cancelled.

    The frames are version tables (``versions.SCHEMAS``). A window of n days ends on ``as_of`` and includes it.
    Amounts are items plus freight, in the order's currency; ``n_items`` counts lines, as ``fact_order`` does. Cancelled
    and unavailable orders count in ``n_cancelled`` only.
    """
    # Kept, because purchases and lines, baskets and categories start from the same rows.
    of_customers = known_orders(orders, cutoffs).where(F.col("customer_id").isNotNull()).persist()
    lines = known_lines(of_customers.where("is_sold"), order_items, cutoffs).persist()
    behavior = (
        purchases(of_customers, cutoffs)
        .join(baskets(lines, cutoffs), KEY, "left")
        .join(categories(lines, products, cutoffs), KEY, "left")
        .join(visits(events, cutoffs), KEY, "left")
    )
    n_orders = F.col("n_orders")
    zero = {name: F.coalesce(name, F.lit(0)) for name in (*BASKET_COLUMNS, "n_categories", *VISIT_COLUMNS)}
    return behavior.withColumns(zero).select(
        "as_of",
        "customer_id",
        F.datediff("as_of", "last_order_on").alias("recency_days"),
        F.datediff("as_of", "first_order_on").alias("tenure_days"),
        "n_orders",
        "n_orders_30d",
        "n_orders_90d",
        "n_orders_180d",
        "n_orders_365d",
        amount(F.col("spent")).alias("order_amount_total"),
        amount(F.col("spent_90d")).alias("order_amount_90d"),
        amount(F.col("spent_365d")).alias("order_amount_365d"),
        (amount(F.col("spent")) / n_orders).alias("avg_order_amount"),
        F.try_divide(F.datediff("last_order_on", "first_order_on"), n_orders - 1).alias("avg_days_between_orders"),
        "n_cancelled",
        "n_categories",
        "n_marketplaces",
        F.col("n_items").cast("int"),
        F.try_divide("delivery_micros", F.col("n_delivered") * MICROS_PER_DAY).alias("avg_delivery_days"),
        "n_late_deliveries",
        F.col("n_sessions_30d").cast("int"),
        F.col("n_sessions_90d").cast("int"),
        F.col("n_product_views_30d").cast("int"),
        F.col("n_cart_adds_30d").cast("int"),
        F.datediff("as_of", "last_session_on").alias("days_since_last_session"),
        "last_order_on",
    )


def purchases(orders: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: as_of, customer_id. Counts, days and deliveries of the orders placed by ``as_of``."""
    sold = F.col("is_sold")
    is_delivered = sold & (F.to_date("delivered_at") <= F.col("as_of"))
    per_marketplace = (
        at_cutoffs(orders.repartition("customer_id"), cutoffs)
        .groupBy(*KEY, "marketplace")
        .agg(
            n_where(sold).alias("n_orders"),
            *(n_where(sold & in_last(days, "ordered_on")).alias(f"n_orders_{days}d") for days in (30, 90, 180, 365)),
            n_where(~sold).alias("n_cancelled"),
            F.min(F.when(sold, F.col("ordered_on"))).alias("first_order_on"),
            F.max(F.when(sold, F.col("ordered_on"))).alias("last_order_on"),
            n_where(is_delivered).alias("n_delivered"),
            n_where(is_delivered & is_late()).alias("n_late_deliveries"),
            F.sum(F.when(is_delivered, micros_between("ordered_at", "delivered_at"))).alias("delivery_micros"),
        )
    )
    summed = ("n_orders", "n_orders_30d", "n_orders_90d", "n_orders_180d", "n_orders_365d", "n_cancelled",
              "n_delivered", "n_late_deliveries")  # fmt: skip
    return (
        per_marketplace.groupBy(*KEY)
        .agg(
            *(F.sum(name).cast("int").alias(name) for name in summed),
            n_where(F.col("n_orders") > 0).alias("n_marketplaces"),
            F.min("first_order_on").alias("first_order_on"),
            F.max("last_order_on").alias("last_order_on"),
            F.sum("delivery_micros").alias("delivery_micros"),
        )
        .where(F.col("n_orders") > 0)
    )


BASKET_COLUMNS = ("n_items", "spent", "spent_90d", "spent_365d")


def baskets(lines: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: as_of, customer_id. Lines and money (1/10,000) of what was bought by ``as_of``."""
    spent = F.col("item_money") + F.coalesce("freight_money", F.lit(0))
    per_day = (
        lines.repartition("customer_id")
        .groupBy("customer_id", "ordered_on", "first_cutoff", "last_cutoff")
        .agg(F.count("*").alias("n_items"), F.sum(spent).alias("spent"))
    )
    return (
        at_cutoffs(per_day, cutoffs)
        .groupBy(*KEY)
        .agg(
            F.sum("n_items").alias("n_items"),
            F.sum("spent").alias("spent"),
            *(F.sum(F.when(in_last(days, "ordered_on"), F.col("spent"))).alias(f"spent_{days}d") for days in (90, 365)),
        )
    )


def categories(lines: DataFrame, products: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: as_of, customer_id. How many categories were bought, each product's as known by ``as_of``."""
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
    bought = (
        common_cutoffs(lines.join(catalogue, PRODUCT), "product")
        .repartition("customer_id")
        .select("customer_id", "category", "first_cutoff", "last_cutoff")
        .distinct()
    )
    return (
        at_cutoffs(bought, cutoffs)
        .select(*KEY, "category")
        .distinct()
        .groupBy(*KEY)
        .agg(F.count("*").cast("int").alias("n_categories"))
    )


VISIT_COLUMNS = ("n_sessions_30d", "n_sessions_90d", "n_product_views_30d", "n_cart_adds_30d")


def visits(events: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: as_of, customer_id. Sessions by ``as_of`` of customers who were logged in."""
    per_day = (
        sessions(events, cutoffs)
        .where(F.col("customer_id").isNotNull())
        .repartition("customer_id")
        .groupBy("customer_id", "session_on", "first_cutoff", "last_cutoff")
        .agg(
            F.count("*").alias("n_sessions"),
            F.sum("n_product_views").alias("n_product_views"),
            F.sum("n_cart_adds").alias("n_cart_adds"),
        )
    )
    recent, of_late = in_last(30, "session_on"), in_last(90, "session_on")
    return (
        at_cutoffs(per_day, cutoffs)
        .groupBy(*KEY)
        .agg(
            F.sum(F.when(recent, F.col("n_sessions"))).alias("n_sessions_30d"),
            F.sum(F.when(of_late, F.col("n_sessions"))).alias("n_sessions_90d"),
            F.sum(F.when(recent, F.col("n_product_views"))).alias("n_product_views_30d"),
            F.sum(F.when(recent, F.col("n_cart_adds"))).alias("n_cart_adds_30d"),
            F.max("session_on").alias("last_session_on"),
        )
    )
