from collections import defaultdict
from datetime import date, timedelta

import pytest
from pyspark.sql import SparkSession

from spark_jobs.demand_history import demand_history
from tests.integration.spark_jobs import oracle
from tests.integration.spark_jobs.world import Row, frames, item, order, product, random_world

pytestmark = pytest.mark.integration

DAY = date(2025, 3, 10)


def built(spark: SparkSession, as_of: date, history_days: int = 400, **tables: list[Row]) -> list[Row]:
    made = frames(spark, **tables)
    rows = demand_history(made["orders"], made["order_items"], made["products"], as_of, history_days).collect()
    return [row.asDict() for row in rows]


def state(rows: list[Row], cutoff: date) -> dict[tuple[str, str, date], dict[str, float]]:
    """What the deltas say was known by ``cutoff``."""
    totals: dict[tuple[str, str, date], dict[str, float]] = defaultdict(lambda: {"units": 0.0, "revenue": 0.0})
    for row in rows:
        if row["known_on"] <= cutoff:
            cell = totals[row["marketplace"], row["product_id"], row["sold_on"]]
            cell["units"] += row["units_delta"]
            cell["revenue"] += row["revenue_delta"]
    return {key: cell for key, cell in totals.items() if cell["units"] or abs(cell["revenue"]) > 1e-9}


def test_deltas_add_up_to_what_the_oracle_knew_at_every_cutoff(spark: SparkSession) -> None:
    world = random_world(seed=3, n_orders=260)
    as_of, history = date(2025, 7, 10), 150
    rows = built(spark, as_of, history, **world)
    first = as_of - timedelta(days=history - 1)
    n_cells = 0
    for cutoff in (as_of - timedelta(days=n) for n in (0, 1, 17, 60, 120)):
        expected = oracle.demand(world["orders"], world["order_items"], cutoff, first)
        found = state(rows, cutoff)
        assert found.keys() == expected.keys(), cutoff
        for key, cell in expected.items():
            assert found[key] == pytest.approx(cell, abs=1e-9), (cutoff, key)
        n_cells += len(expected)
    assert n_cells > 200
    grain = [(row["marketplace"], row["product_id"], row["sold_on"], row["known_on"]) for row in rows]
    assert len(set(grain)) == len(grain)


def test_cancellation_takes_back_the_units_on_the_day_it_is_known(spark: SparkSession) -> None:
    day = timedelta(days=1)
    orders = [
        order("1", DAY),
        order("1", DAY, known_on=DAY + day, status="approved"),
        order("1", DAY, known_on=DAY + 4 * day, status="canceled"),
        order("2", DAY),
        order("2", DAY, known_on=DAY + 9 * day, status="returned"),
    ]
    items = [item("1", DAY, quantity=3, item_amount=30.0), item("2", DAY, quantity=1, item_amount=10.0)]
    tables = {"orders": orders, "order_items": items, "products": [product("tea")]}
    rows = built(spark, DAY + 5 * day, **tables)
    deltas = sorted((row["known_on"], row["units_delta"], row["revenue_delta"]) for row in rows)
    # Approval changed nothing about demand, and the return is not known yet.
    assert deltas == [(DAY, 4.0, 40.0), (DAY + 4 * day, -3.0, -30.0)]
    assert {row["category"] for row in rows} == {"drinks"}


def test_corrected_item_moves_units_to_the_right_product_when_known(spark: SparkSession) -> None:
    later = DAY + timedelta(days=7)
    items = [item("1", DAY, quantity=2), item("1", DAY, known_on=later, quantity=5, product_id="cup")]
    rows = built(spark, later, orders=[order("1", DAY)], order_items=items)
    deltas = {(row["product_id"], row["known_on"]): row["units_delta"] for row in rows}
    assert deltas == {("tea", DAY): 2.0, ("tea", later): -2.0, ("cup", later): 5.0}
    assert {row["category"] for row in rows} == {"unknown"}
