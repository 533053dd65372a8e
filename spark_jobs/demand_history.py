"""Feature view ``demand_history``: units sold per product and day, as the changes to what was known."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.versions import ITEM, NOT_SOLD, ORDER, PRODUCT, amount, money, with_cutoffs, with_validity

NOT_DEMAND = (*NOT_SOLD, "returned")
UNKNOWN_CATEGORY = "unknown"


def demand_history(
    orders: DataFrame, order_items: DataFrame, products: DataFrame, as_of: date, history_days: int
) -> DataFrame:
    """Grain: as_of, marketplace, product_id, sold_on, known_on. What a day taught about the sales of another.

    ``units_delta`` and ``revenue_delta`` (items without freight) are positive when an order became known, negative
    when it became known to be cancelled, unavailable or returned, and the difference when an item was corrected. The
    sum over ``known_on <= c`` is what was known as of c, for every c up to ``as_of``. ``sold_on`` is the order's day,
    within the ``history_days`` days to ``as_of``. ``category`` is the one known by ``as_of``.
    """
    sold_orders = (
        with_validity(orders, ORDER)
        .where(~F.col("status").isin(*NOT_DEMAND))
        .select(*ORDER, F.col("ordered_on").alias("sold_on"), F.col("known_on").alias("order_from"),
                F.col("known_until").alias("order_until"))
    )  # fmt: skip
    items = with_validity(order_items.repartition(*ORDER), ITEM).select(
        *ORDER, "product_id", "quantity", money("item_amount").alias("revenue"), "known_on", "known_until"
    )
    # The days on which both the order counted and the item looked like this: sold at the first, unsold at the last.
    sold = (
        sold_orders.join(items, ORDER)
        .where(F.datediff(F.lit(as_of), F.col("sold_on")).between(0, history_days - 1))
        .where(F.col("product_id").isNotNull())
        .withColumns({"start": F.greatest("order_from", "known_on"), "end": F.least("order_until", "known_until")})
        .where(F.col("end").isNull() | (F.col("start") < F.col("end")))
    )
    change = F.explode(
        F.array(
            F.struct(F.col("start").alias("known_on"), F.lit(1).alias("sign")),
            F.struct(F.col("end").alias("known_on"), F.lit(-1).alias("sign")),
        )
    )
    catalogue = with_cutoffs(products, PRODUCT, [as_of]).select(*PRODUCT, "category")
    return (
        sold.select(*PRODUCT, "sold_on", "quantity", "revenue", change.alias("change"))
        .where(F.col("change.known_on") <= F.lit(as_of))
        .groupBy(*PRODUCT, "sold_on", F.col("change.known_on").alias("known_on"))
        .agg(
            F.sum(F.col("quantity") * F.col("change.sign")).alias("units"),
            F.sum(F.col("revenue") * F.col("change.sign")).alias("revenue"),
        )
        .where((F.col("units") != 0) | (F.col("revenue") != 0))
        .join(catalogue, PRODUCT, "left")
        .select(
            F.lit(as_of).alias("as_of"),
            *PRODUCT,
            "sold_on",
            "known_on",
            F.coalesce("category", F.lit(UNKNOWN_CATEGORY)).alias("category"),
            F.col("units").cast("double").alias("units_delta"),
            amount(F.col("revenue")).alias("revenue_delta"),
        )
    )
