from datetime import date, timedelta

import pytest
from pyspark.sql import SparkSession

from spark_jobs.sessionise import of_versions, sessions_at_cutoffs
from spark_jobs.user_behavior import user_behavior
from tests.integration.spark_jobs import oracle
from tests.integration.spark_jobs.world import Row, event, frames, item, moment, order, product, random_world

pytestmark = pytest.mark.integration

CUTOFFS = [date(2025, 3, 1), date(2025, 4, 1), date(2025, 5, 1), date(2025, 6, 19)]
DAY = date(2025, 3, 10)


def built(spark: SparkSession, cutoffs: list[date], **tables: list[Row]) -> dict[tuple[date, str], Row]:
    made = frames(spark, **tables)
    visits = sessions_at_cutoffs(of_versions(made["events"]), made["events"], cutoffs)
    rows = user_behavior(made["orders"], made["order_items"], made["products"], visits, cutoffs).collect()
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


DAYS = [DAY + timedelta(days=n) for n in (0, 2, 3, 9, 10, 15, 40)]
"""Cutoffs of the scenarios below."""


@pytest.fixture(scope="module")
def scenarios(spark: SparkSession) -> dict[tuple[date, str], Row]:
    """All scenarios in one build (it costs seconds, and customers do not touch each other)."""
    tenth, fifteenth = DAY + timedelta(days=10), DAY + timedelta(days=15)
    day, minute = timedelta(days=1), timedelta(minutes=1)
    morning = moment(DAY, 36_000)
    return built(
        spark,
        DAYS,
        products=[product("tea")],
        orders=[
            # ann's order of the first day comes with a file of the tenth; her other one is delivered on the tenth,
            # corrected then, and cancelled on the fifteenth.
            order("1", DAY, known_on=tenth),
            order("2", DAY),
            order("2", DAY, known_on=tenth, status="delivered", delivered_at=moment(tenth)),
            order("2", DAY, known_on=fifteenth, status="canceled"),
            order("3", DAY + 9 * day, known_on=DAY, customer_id="eve"),
            order("4", DAY, customer_id="cal"),
            order("4", DAY, DAY + day, customer_id="cal", status="canceled", known_at=moment(DAY + day, 100)),
            order("4", DAY, DAY + 2 * day, customer_id="cal", status="approved", known_at=moment(DAY, 60_000)),
            order("5", DAY, customer_id="cal"),
            order("6", DAY, customer_id="sue"),
            order("7", DAY, customer_id=None),
        ],
        order_items=[item("1", DAY, known_on=tenth), item("2", DAY), item("2", DAY, known_on=tenth, item_amount=99.0)],
        events=[
            event("a", morning, customer_id="sue"),
            event("b", morning + 40 * minute, customer_id=None, event_type="cart"),
            event("c", moment(DAY, 86_390), customer_id="sue"),
            event("d", moment(DAY, 86_410), customer_id="sue"),
            event("late", morning + 20 * minute, known_on=DAY + 3 * day, customer_id=None),
            event("crawl", morning, customer_id="cal", visitor_id="crawler", is_bot_agent=True),
        ],
    )


def series(scenarios: dict[tuple[date, str], Row], customer: str, column: str) -> list[object]:
    """A feature at every cutoff of ``DAYS``; "absent" where the customer has no row."""
    return [scenarios[cutoff, customer][column] if (cutoff, customer) in scenarios else "absent" for cutoff in DAYS]


def test_order_known_after_cutoff_never_reaches_features(scenarios: dict[tuple[date, str], Row]) -> None:
    assert series(scenarios, "ann", "n_orders") == [1, 1, 1, 1, 2, 1, 1]
    assert series(scenarios, "ann", "n_cancelled") == [0, 0, 0, 0, 0, 1, 1]


def test_correction_known_after_cutoff_never_reaches_features(scenarios: dict[tuple[date, str], Row]) -> None:
    assert series(scenarios, "ann", "order_amount_total") == [11.0, 11.0, 11.0, 11.0, 111.0, 11.0, 11.0]
    assert series(scenarios, "ann", "avg_delivery_days") == [None, None, None, None, 9.5, None, None]


def test_order_dated_into_the_future_exists_from_its_day_on(scenarios: dict[tuple[date, str], Row]) -> None:
    assert series(scenarios, "eve", "recency_days") == ["absent", "absent", "absent", 0, 1, 6, 31]


def test_older_news_that_arrives_late_does_not_overtake_newer_news(scenarios: dict[tuple[date, str], Row]) -> None:
    assert series(scenarios, "cal", "n_cancelled") == [0, 1, 1, 1, 1, 1, 1]


def test_late_event_joins_two_sessions_from_the_day_it_is_known(scenarios: dict[tuple[date, str], Row]) -> None:
    # The cart belongs to nobody until the late event ties it to sue's session. Midnight cuts without any silence.
    assert series(scenarios, "sue", "n_cart_adds_30d") == [0, 0, 1, 1, 1, 1, 0]
    assert series(scenarios, "sue", "n_product_views_30d") == [2, 3, 4, 4, 4, 4, 0]
    assert series(scenarios, "sue", "n_sessions_90d") == [2, 3, 3, 3, 3, 3, 3]
    assert series(scenarios, "sue", "n_sessions_30d") == [2, 3, 3, 3, 3, 3, 0]
    assert series(scenarios, "sue", "days_since_last_session") == [0, 1, 2, 8, 9, 14, 39]


def test_bots_that_log_in_have_no_sessions(scenarios: dict[tuple[date, str], Row]) -> None:
    assert series(scenarios, "cal", "n_sessions_90d") == [0] * len(DAYS)


def test_guests_have_no_features(scenarios: dict[tuple[date, str], Row]) -> None:
    assert {customer for _, customer in scenarios} == {"ann", "eve", "cal", "sue"}
