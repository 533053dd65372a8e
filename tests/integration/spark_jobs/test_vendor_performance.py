from datetime import date

import pytest
from pyspark.sql import SparkSession

from spark_jobs.vendor_performance import vendor_performance, with_shrunk_rate
from tests.integration.spark_jobs import oracle
from tests.integration.spark_jobs.world import frames, random_world

pytestmark = pytest.mark.integration


def test_equals_an_independent_oracle(spark: SparkSession) -> None:
    world = random_world(seed=5, n_orders=220)
    made = frames(spark, **world)
    cutoffs = [date(2025, 4, 1), date(2025, 7, 3)]
    rows = vendor_performance(made["orders"], made["order_items"], cutoffs).collect()
    found = {(row["as_of"], row["marketplace"], row["vendor_id"]): row.asDict() for row in rows}
    n_expected = 0
    for as_of in cutoffs:
        for key, features in oracle.vendor_performance(world["orders"], world["order_items"], as_of).items():
            n_expected += 1
            row = found[as_of, *key]
            assert {name: row[name] for name in features} == pytest.approx(features, abs=1e-9), (as_of, key)
            assert 0 <= row["late_rate_shrunk_90d"] <= 1
    assert len(found) == len(rows) == n_expected == 12


def shrunk(spark: SparkSession, vendors: list[tuple[int, int]]) -> list[float | None]:
    """Shrunk rates of one marketplace's vendors, given (late, delivered) of each."""
    rows = [(date(2025, 1, 1), "m", f"{n:03d}", late, delivered) for n, (late, delivered) in enumerate(vendors)]
    frame = spark.createDataFrame(rows, "as_of date, marketplace string, vendor_id string, n_late int, n_delivered int")
    return [row["shrunk_rate"] for row in with_shrunk_rate(frame).orderBy("vendor_id").collect()]


def test_late_rate_is_drawn_to_the_marketplace_the_more_the_fewer_deliveries(spark: SparkSession) -> None:
    vendors = [(90, 300), (3, 10), (1, 1), (0, 0), (5, 300), (2, 290), (60, 200), (0, 12)]
    rates = shrunk(spark, vendors)
    mean = sum(late for late, _ in vendors) / sum(n for _, n in vendors)
    assert rates[3] == pytest.approx(mean)
    assert rates[0] == pytest.approx(0.3, abs=0.01), "three hundred deliveries speak for themselves"
    assert mean < rates[1] < 0.3
    assert mean < rates[2] < 0.5, "one late delivery of one says little"
    assert 0 < rates[7] < mean


def test_shrunk_rate_equals_the_formula_worked_by_hand(spark: SparkSession) -> None:
    x, n = [30, 10, 5], [100, 100, 50]
    total_x, total_n = sum(x), sum(n)
    m = total_x / total_n
    s = sum(late * late / size for late, size in zip(x, n, strict=True)) - total_x**2 / total_n
    rho = (s / (m * (1 - m)) - 2) / (total_n - sum(size * size for size in n) / total_n - 2)
    k = 1 / rho - 1
    expected = [(late + k * m) / (size + k) for late, size in zip(x, n, strict=True)]
    assert shrunk(spark, list(zip(x, n, strict=True))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("vendors", "expected"),
    [
        ([(0, 0)], [None]),
        ([(2, 8)], [0.25]),
        ([(0, 8), (0, 3)], [0, 0]),
        ([(8, 8), (3, 3)], [1, 1]),
        ([(0, 50), (50, 50)], [0, 1]),
    ],
)
def test_markets_without_variance_have_a_rate_all_the_same(
    spark: SparkSession, vendors: list[tuple[int, int]], expected: list[float | None]
) -> None:
    assert shrunk(spark, vendors) == pytest.approx(expected)
