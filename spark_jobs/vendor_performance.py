"""Feature view ``vendor_performance``: how a vendor sold and delivered, as known at each cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from spark_jobs.versions import (
    MICROS_PER_DAY,
    amount,
    at_cutoffs,
    in_last,
    is_late,
    known_lines,
    known_orders,
    micros_between,
    n_where,
)

KEY = ["as_of", "marketplace", "vendor_id"]
WINDOW_DAYS = 90
LARGEST_PRIOR = 1000.0
"""Deliveries that the prior counts for at most: where vendors differ no more than chance makes them differ."""


def vendor_performance(orders: DataFrame, order_items: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: as_of, marketplace, vendor_id. Vendors with an order placed or delivered in the 90 days to ``as_of``.

    The frames are version tables (``versions.SCHEMAS``). An order of several vendors counts for each. Orders, items
    (lines) and gross merchandise value (without freight) are of orders placed in the window and not cancelled;
    ``cancel_rate_90d`` is the share of those placed that were cancelled or unavailable. Deliveries are those made in
    the window, whenever the order was placed, so that slow ones are not missing. A rate is null where there is
    nothing to divide by.
    """
    lines = known_lines(known_orders(orders, cutoffs), order_items, cutoffs).where(F.col("vendor_id").isNotNull())
    return with_shrunk_rate(per_vendor(lines, cutoffs)).select(
        *KEY,
        F.col("n_orders").alias("n_orders_90d"),
        F.col("n_items").cast("int").alias("n_items_90d"),
        amount(F.col("sold")).alias("gmv_90d"),
        F.col("n_delivered").alias("n_delivered_90d"),
        F.col("n_late").alias("n_late_90d"),
        F.try_divide("n_late", "n_delivered").alias("late_rate_90d"),
        F.col("shrunk_rate").alias("late_rate_shrunk_90d"),
        F.try_divide("delivery_micros", F.col("n_delivered") * MICROS_PER_DAY).alias("avg_delivery_days_90d"),
        F.try_divide("n_cancelled", F.col("n_orders") + F.col("n_cancelled")).alias("cancel_rate_90d"),
    )


def per_vendor(lines: DataFrame, cutoffs: Sequence[date]) -> DataFrame:
    """Grain: as_of, marketplace, vendor_id. The counts and sums (1/10,000, microseconds) behind the rates."""
    is_placed = in_last(WINDOW_DAYS, "ordered_on")
    is_delivered = F.col("is_sold") & F.coalesce(in_last(WINDOW_DAYS, "delivered_on"), F.lit(False))
    per_order = (
        at_cutoffs(lines.withColumn("delivered_on", F.to_date("delivered_at")), cutoffs)
        .withColumns({"is_placed": is_placed, "is_delivered": is_delivered, "is_late": is_late()})
        .where(F.col("is_placed") | F.col("is_delivered"))
        .withColumn("delivery_micros", micros_between("ordered_at", "delivered_at"))
        # The same for all lines of an order, so grouping by them only carries them along.
        .groupBy(*KEY, "order_id", "is_sold", "is_placed", "is_delivered", "is_late", "delivery_micros")
        .agg(F.count("*").alias("n_items"), F.sum("item_money").alias("sold"))
    )
    counts = F.col("is_placed") & F.col("is_sold")
    return per_order.groupBy(*KEY).agg(
        n_where(counts).alias("n_orders"),
        n_where(F.col("is_placed") & ~F.col("is_sold")).alias("n_cancelled"),
        _sum_where(counts, "n_items").alias("n_items"),
        _sum_where(counts, "sold").alias("sold"),
        n_where(F.col("is_delivered")).alias("n_delivered"),
        n_where(F.col("is_delivered") & F.col("is_late")).alias("n_late"),
        _sum_where(F.col("is_delivered"), "delivery_micros").alias("delivery_micros"),
    )


def _sum_where(condition: Column, column: str) -> Column:
    return F.coalesce(F.sum(F.when(condition, F.col(column))), F.lit(0))


def with_shrunk_rate(vendors: DataFrame) -> DataFrame:
    """``vendors`` with ``shrunk_rate``: the late rate drawn toward its marketplace's, the more the fewer deliveries.

    Empirical Bayes with a beta prior whose mean m is the marketplace's late rate and whose weight k (in deliveries)
    follows from how much vendors differ, by the method of moments for proportions of unequal size (J. C. Kleinman,
    Proportions with extraneous variance: single and independent samples, JASA 68, 1973): with x late of n per vendor
    of V and N = sum n,

        S = sum x^2/n - (sum x)^2/N,    rho = (S/(m(1-m)) - (V-1)) / (N - sum n^2/N - (V-1)),    k = 1/rho - 1

    and the rate is (x + k m) / (n + k). A vendor without deliveries gets m; null in a marketplace without any.
    """
    market = Window.partitionBy("as_of", "marketplace")
    late, delivered = F.col("n_late"), F.col("n_delivered")
    # A decimal, because a sum of doubles depends on the order of the rows.
    squares = F.coalesce(F.try_divide(late * late, delivered), F.lit(0.0)).cast("decimal(28,12)")
    totals = vendors.withColumns(
        {
            "total_late": F.sum(late).over(market).cast("double"),
            "total": F.sum(delivered).over(market).cast("double"),
            "n_vendors": F.count(F.when(delivered > 0, True)).over(market),
            "squares": F.sum(squares).over(market).cast("double"),
            "sizes": F.sum(delivered * delivered).over(market).cast("double"),
        }
    )
    freedom = F.col("n_vendors") - 1
    rate = F.try_divide("total_late", "total")
    between = F.col("squares") - F.col("total_late") * rate
    rho = F.try_divide(
        F.try_divide(between, rate * (1 - rate)) - freedom, F.col("total") - F.col("sizes") / F.col("total") - freedom
    )
    # No variance to estimate it from (one vendor, or nobody or everybody late): every weight gives the same rate.
    weight = 1 / F.least(F.greatest(F.coalesce(rho, F.lit(0.0)), F.lit(1 / (1 + LARGEST_PRIOR))), F.lit(1.0)) - 1
    return (
        totals.withColumn("rate", rate)
        .withColumn("weight", F.when(F.col("total") > 0, weight))
        .withColumn(
            "shrunk_rate",
            F.coalesce(
                F.try_divide(late + F.col("weight") * F.col("rate"), delivered + F.col("weight")), F.col("rate")
            ),
        )
        .drop("total_late", "total", "n_vendors", "squares", "sizes", "rate", "weight")
    )
