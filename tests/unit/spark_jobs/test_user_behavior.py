from datetime import date, timedelta

import pytest
from pyspark.sql import SparkSession

from spark_jobs.user_behavior import user_behavior
from tests.unit.spark_jobs import oracle
from tests.unit.spark_jobs.world import Row, event, frames, item, moment, order, product, random_world

CUTOFFS = [date(2025, 3, 1), date(2025, 4, 1), date(2025, 5, 1), date(2025, 6, 19)]
DAY = date(2025, 3, 10)


def built(spark: SparkSession, cutoffs: list[date], **tables: list[Row]) -> dict[tuple[date, str], Row]:
    made = frames(spark, **tables)
    rows = user_behavior(made["orders"], made["order_items"], made["products"], made["events"], cutoffs).collect()
    features = {(row["as_of"], row["customer_id"]): row.asDict() for row in rows}
    assert len(features) == len(rows), "a customer has two rows as of one day"
    return features


def test_equals_an_independent_oracle_at_every_cutoff(spark: SparkSession) -> None:
    world = random_world(seed=11)
    found = built(spark, CUTOFFS, **world)
    n_expected = 0
    for as_of in CUTOFFS:
        expected = oracle.user_behavior(
            world["orders"], world["order_items"], world["products"], world["events"], as_of
        )
        n_expected += len(expected)
        for customer, features in expected.items():
            row = found[as_of, customer]
            assert {name: row[name] for name in features} == pytest.approx(features, abs=1e-9), (as_of, customer)
    assert len(found) == n_expected > 40


def test_order_known_after_cutoff_never_reaches_features(spark: SparkSession) -> None:
    # Ordered on the 10th, but the file came on the 20th; a second customer orders after the first cutoff.
    late = DAY + timedelta(days=10)
    orders = [
        order("1", DAY, known_on=late),
        order("2", DAY + timedelta(days=5), customer_id="bob"),
        order("3", DAY),
        # Delivered later, cancelled later still: each cutoff sees its own state.
        order("3", DAY, known_on=late, status="delivered", delivered_at=moment(late)),
        order("3", DAY, known_on=late + timedelta(days=5), status="canceled"),
        order("4", DAY + timedelta(days=9), known_on=DAY, customer_id="eve"),
    ]
    items = [item("1", DAY, known_on=late), item("3", DAY), item("3", DAY, known_on=late, item_amount=99.0)]
    cutoffs = [DAY, late - timedelta(days=1), late, late + timedelta(days=5)]
    found = built(spark, cutoffs, orders=orders, order_items=items, products=[product("tea")])

    assert {key for key in found if key[0] == DAY} == {(DAY, "ann")}
    ann = [found[cutoff, "ann"] for cutoff in cutoffs]
    assert [row["n_orders"] for row in ann] == [1, 1, 2, 1]
    assert [row["order_amount_total"] for row in ann] == [11.0, 11.0, 111.0, 11.0]
    assert [row["avg_delivery_days"] for row in ann] == [None, None, 9.5, None]
    assert [row["n_cancelled"] for row in ann] == [0, 0, 0, 1]
    assert (cutoffs[1], "bob") in found
    # An order that its source dated into the future exists from that day on only.
    assert [cutoff for cutoff in cutoffs if (cutoff, "eve") in found] == cutoffs[2:]


def test_correction_that_arrives_late_but_is_older_does_not_overtake_the_newer_one(spark: SparkSession) -> None:
    day = timedelta(days=1)
    orders = [
        order("1", DAY),
        order("1", DAY, known_on=DAY + day, status="canceled", known_at=moment(DAY + day, 100)),
        # A file of the first day, found on the third: its news is older than the cancellation.
        order("1", DAY, known_on=DAY + 2 * day, status="approved", known_at=moment(DAY, 60_000)),
        order("2", DAY),
    ]
    found = built(spark, [DAY, DAY + 2 * day], orders=orders)
    assert [found[DAY + n * day, "ann"]["n_cancelled"] for n in (0, 2)] == [0, 1]


def test_late_event_joins_two_sessions_from_the_day_it_is_known(spark: SparkSession) -> None:
    at = moment(DAY, 36_000)
    minutes = timedelta(minutes=1)
    events = [
        event("a", at),
        event("b", at + 40 * minutes, customer_id=None, event_type="cart"),
        # Midnight cuts, whatever the silence.
        event("c", moment(DAY, 86_390)),
        event("d", moment(DAY, 86_410)),
        event("late", at + 20 * minutes, known_on=DAY + timedelta(days=3), customer_id=None),
    ]
    cutoffs = [DAY, DAY + timedelta(days=2), DAY + timedelta(days=3), DAY + timedelta(days=40)]
    found = built(spark, cutoffs, orders=[order("1", DAY)], events=events)
    seen = [found[cutoff, "ann"] for cutoff in cutoffs]
    # The cart belongs to nobody until the late event ties it to ann's session.
    assert [row["n_sessions_30d"] for row in seen] == [2, 3, 3, 0]
    assert [row["n_cart_adds_30d"] for row in seen] == [0, 0, 1, 0]
    assert [row["n_product_views_30d"] for row in seen] == [2, 3, 4, 0]
    assert [row["n_sessions_90d"] for row in seen] == [2, 3, 3, 3]
    assert [row["days_since_last_session"] for row in seen] == [0, 1, 2, 39]


def test_no_data_at_all_gives_no_rows_but_all_columns(spark: SparkSession) -> None:
    made = frames(spark)
    rows = user_behavior(made["orders"], made["order_items"], made["products"], made["events"], CUTOFFS)
    assert rows.collect() == []
    assert rows.columns[:2] == ["as_of", "customer_id"]
    assert len(rows.columns) == 26
