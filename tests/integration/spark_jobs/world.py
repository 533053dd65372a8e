"""Random version tables, small and nasty: late versions, corrections, cancellations, guests, unknown products."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from spark_jobs.events import SCHEMA as EVENTS
from spark_jobs.versions import SCHEMAS

Row = dict[str, Any]
World = dict[str, list[Row]]

MARKETS = ("demo_shop", "demo_outlet")
START = date(2025, 1, 1)


def moment(day: date, seconds: float = 0) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC) + timedelta(seconds=seconds)


def order(order_id: str, ordered_on: date, known_on: date | None = None, **values: Any) -> Row:
    """A version of an order, placed and known at noon unless said otherwise."""
    known = known_on or ordered_on
    return {
        "marketplace": "demo_shop",
        "order_id": order_id,
        "customer_id": "ann",
        "ordered_at": moment(ordered_on, 43_200),
        "ordered_on": ordered_on,
        "status": "created",
        "approved_at": None,
        "handed_over_at": None,
        "delivered_at": None,
        "estimated_delivery_at": None,
        "is_deleted": False,
        "known_at": moment(known, 43_200),
        "known_on": known,
        "known_month": known.replace(day=1),
    } | values


def item(order_id: str, ordered_on: date, known_on: date | None = None, **values: Any) -> Row:
    known = known_on or ordered_on
    return {
        "marketplace": "demo_shop",
        "order_id": order_id,
        "order_item_id": 1,
        "product_id": "tea",
        "vendor_id": "vera",
        "quantity": 1,
        "item_amount": 10.0,
        "freight_amount": 1.0,
        "ordered_on": ordered_on,
        "is_deleted": False,
        "known_at": moment(known, 43_200),
        "known_on": known,
        "known_month": known.replace(day=1),
    } | values


def product(product_id: str, known_on: date = START, **values: Any) -> Row:
    return {
        "marketplace": "demo_shop",
        "product_id": product_id,
        "category": "drinks",
        "list_price_amount": 10.0,
        "is_deleted": False,
        "known_at": moment(known_on),
        "known_on": known_on,
        "known_month": known_on.replace(day=1),
    } | values


def event(event_id: str, event_at: datetime, known_on: date | None = None, **values: Any) -> Row:
    """A version of an event, known with its day's file unless said otherwise."""
    known = known_on or event_at.date()
    return {
        "source": "clicks",
        "marketplace": "demo_shop",
        "event_id": event_id,
        "visitor_id": "visitor",
        "customer_id": "ann",
        "event_type": "view",
        "product_id": "tea",
        "campaign": None,
        "is_bot_agent": False,
        "event_at": event_at,
        "event_on": event_at.date(),
        "known_at": max(event_at, moment(known)),
        "known_on": known,
        "known_month": known.replace(day=1),
    } | values


def frames(spark: SparkSession, **tables: list[Row]) -> dict[str, DataFrame]:
    """The four tables as frames; those not given are empty."""
    made = {}
    for table, schema in (SCHEMAS | {"events": EVENTS}).items():
        names = [part.split()[0] for part in schema.split(", ")]
        rows = [tuple(row[name] for name in names) for row in tables.get(table, [])]
        made[table] = spark.createDataFrame(rows, schema)
    return made


def random_world(seed: int, n_orders: int = 160, n_visits: int = 120, days: int = 200) -> World:
    """Versions over ``days`` days from ``START``; the same for the same seed."""
    dice = random.Random(seed)
    world: World = {"orders": [], "order_items": [], "products": [], "events": []}
    customers = [f"customer-{n}" for n in range(12)]
    for market in MARKETS:
        for number in range(9):
            first = START + timedelta(days=dice.randrange(60))
            category = dice.choice(["drinks", "books", "toys", None])
            world["products"].append(product(f"p{number}", first, marketplace=market, category=category))
            if dice.random() < 0.4:
                later = first + timedelta(days=dice.randrange(1, 90))
                world["products"].append(product(f"p{number}", later, marketplace=market, category="moved"))
            _maybe_deleted(dice, world["products"])
    for number in range(n_orders):
        _random_order(dice, world, str(number % (n_orders - 10)), customers, days)
    _one_version_a_day(world, "orders", ("marketplace", "order_id"))
    _one_version_a_day(world, "order_items", ("marketplace", "order_id", "order_item_id"))
    for number in range(n_visits):
        at = moment(START + timedelta(days=dice.randrange(days)), dice.randrange(86_400))
        customer = dice.choice(customers)
        for click in range(dice.randrange(1, 6)):
            late = START if dice.random() > 0.25 else at.date() + timedelta(days=dice.randrange(1, 40))
            known = max(at.date(), late)
            row = event(
                f"e{number}-{click}", at, known, visitor_id=f"v{dice.randrange(15)}",
                source="clicks" if dice.random() < 0.9 else "more_clicks",
                customer_id=customer if dice.random() < 0.6 else None,
                event_type=dice.choice(["view", "cart", "search", "purchase"]),
                campaign=dice.choice([None, None, None, "mail", "ads"]), is_bot_agent=dice.random() < 0.02,
            )  # fmt: skip
            world["events"].append(row)
            if dice.random() < 0.1:
                news = event(row["event_id"], at, known + timedelta(days=dice.randrange(1, 50)))
                late = {name: news[name] for name in ("known_at", "known_on", "known_month")}
                world["events"].append(row | late | {"event_type": "cart", "customer_id": "ann"})
            at += timedelta(seconds=dice.choice([60, 1799, 1800, 1801, 4000]))
    return world


def _random_order(dice: random.Random, world: World, order_id: str, customers: list[str], days: int) -> None:
    market = dice.choice(MARKETS)
    ordered_at = moment(START + timedelta(days=dice.randrange(days)), dice.randrange(86_400))
    day = ordered_at.date()
    state = order(
        order_id, day, marketplace=market, ordered_at=ordered_at, known_at=ordered_at,
        customer_id=dice.choice(customers) if dice.random() < 0.95 else None,
        estimated_delivery_at=moment(day + timedelta(days=8)) if dice.random() < 0.8 else None,
    )  # fmt: skip
    world["orders"].append(state)
    known_at = ordered_at
    end = dice.choice(["canceled", "unavailable", "delivered", "delivered", "delivered", "returned", "shipped"])
    path = {"canceled": ["canceled"], "unavailable": ["approved", "unavailable"], "shipped": ["approved", "shipped"]}
    for status in path.get(end, ["approved", "shipped", "delivered", *(["returned"] if end == "returned" else [])]):
        known_at += timedelta(hours=dice.randrange(1, 150))
        state = state | {"status": status, "known_at": known_at}
        if status == "delivered":
            state["delivered_at"] = known_at
        # Some news arrives days after it happened, and may be overtaken by newer news.
        known_on = known_at.date() + timedelta(days=dice.choice([0, 0, 0, 3, 9]))
        world["orders"].append(state | {"known_on": known_on, "known_month": known_on.replace(day=1)})
    _maybe_deleted(dice, world["orders"])
    for line in range(dice.randrange(0, 4)):
        known_on = day if dice.random() < 0.9 else day + timedelta(days=dice.randrange(1, 30))
        row = item(
            order_id, day, known_on, marketplace=market, order_item_id=line,
            product_id=f"p{dice.randrange(11)}", vendor_id=dice.choice(["vera", "vic", "val", None]),
            quantity=dice.randrange(1, 4), item_amount=round(dice.random() * 50, 4),
            freight_amount=round(dice.random() * 5, 2) if dice.random() < 0.8 else None,
        )  # fmt: skip
        world["order_items"].append(row)
        if dice.random() < 0.2:
            corrected = item(order_id, day, known_on + timedelta(days=dice.randrange(1, 60)))
            news = ("known_at", "known_on", "known_month")
            fixed = {name: corrected[name] for name in news} | {"quantity": 5, "item_amount": 0.3}
            world["order_items"].append(row | fixed)
        _maybe_deleted(dice, world["order_items"])


def _maybe_deleted(dice: random.Random, versions: list[Row]) -> None:
    """The last version's key is removed, and sometimes comes back."""
    row = versions[-1]
    for is_deleted in [[], [], [], [], [True], [True, False]][dice.randrange(6)]:
        known_at = row["known_at"] + timedelta(days=dice.randrange(1, 40))
        known_on = max(known_at.date(), row["known_on"])
        row = row | {
            "is_deleted": is_deleted, "known_at": known_at, "known_on": known_on,
            "known_month": known_on.replace(day=1),
        }  # fmt: skip
        versions.append(row)


def _one_version_a_day(world: World, table: str, key: tuple[str, ...]) -> None:
    """As the raw tables promise: at most one version of a key per ``known_on``."""
    last = {tuple(row[name] for name in (*key, "known_on")): row for row in world[table]}
    world[table] = list(last.values())
