"""The marts people ask for, against pandas: real rows through the whole build, then a night with late ones."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pytest

from include import dbt
from include.ingest import touched
from include.ingest.sources import load_source
from include.ingest.tables import SESSIONS, columns, prepare
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect
from tests.integration.test_dbt_build import empty_raw, rows
from tests.integration.test_incremental import build

pytestmark = pytest.mark.integration

FIRST, LAST, NIGHT = date(2024, 1, 3), date(2025, 4, 20), date(2025, 5, 6)
NOT_SOLD = ("canceled", "unavailable")
CURRENCY = {"demo_outlet": "USD", "olist": "BRL"}
PRODUCTS = {"demo_outlet": [f"S{n}" for n in range(8)], "olist": [f"p{n}" for n in range(6)]}
WEIGHTS = [10, 9, 6, 4, 3, 2, 2, 1]
VENDORS = {"demo_outlet": ["V1", "V2", "V3", "V4", "V5"], "olist": ["s1", "s2", "s3"]}
LATE_CHANCE = {"V1": 0.05, "V2": 0.15, "V3": 0.3, "V4": 0.55, "V5": 0.9, "s1": 0.1, "s2": 0.5, "s3": 0.3}

# The grid of recency (first digit) and frequency as the field writes it, apart from the model's own conditions.
SEGMENTS = {
    "[12][12]": "hibernating", "[12][34]": "at risk", "[12]5": "cannot lose", "3[12]": "about to sleep",
    "33": "need attention", "[34][45]": "loyal", "41": "promising", "51": "new", "[45][23]": "potential loyalists",
    "5[45]": "champions",
}  # fmt: skip


@dataclass
class Order:
    """What a shop says of an order now."""

    marketplace: str
    order_id: str
    customer: str | None
    ordered_on: date
    status: str
    items: list[tuple[str, str, int, Decimal]]
    """product, vendor, units, price of one"""
    promised_on: date | None = None
    delivered_on: date | None = None
    returned: set[int] = field(default_factory=set)
    known_on: date = FIRST


class World:
    """Two shops, their catalogue and their visitors, and the rows that they bring into raw."""

    def __init__(self) -> None:
        self.rng = random.Random(7)
        self.ids = itertools.count(1)
        self.orders: dict[tuple[str, str], Order] = {}
        self.categories: dict[str, list[tuple[date, str]]] = {}
        self.prices: dict[str, list[tuple[date, Decimal]]] = {}
        self.sessions: list[dict] = []

    def order(self, marketplace: str, on: date, customer: str | None = "?") -> Order:
        rng = self.rng
        customer = f"c{min(int(rng.expovariate(0.07)), 40):02d}" if customer == "?" else customer
        if marketplace == "demo_outlet" and rng.random() < 0.05:
            customer = None
        number = rng.choice([1, 2, 2, 3, 4])
        goods = rng.choices(PRODUCTS[marketplace], WEIGHTS[: len(PRODUCTS[marketplace])], k=number)
        vendor = VENDORS[marketplace]
        items = [
            (one, vendor[PRODUCTS[marketplace].index(one) % len(vendor)],
             1 if marketplace == "olist" else rng.choice([1, 1, 2]), Decimal(rng.randrange(199, 9999)) / 100)
            for one in goods
        ]  # fmt: skip
        status = rng.choices(["delivered", "shipped", "canceled", "unavailable"], [80, 8, 9, 3])[0]
        if marketplace == "olist" and status == "shipped":
            status = "created"
        found = Order(marketplace, f"{marketplace[:2]}{next(self.ids)}", customer, on, status, items, known_on=on)
        if status == "delivered":
            found.promised_on = on + timedelta(days=7)
            is_late = rng.random() < LATE_CHANCE[items[0][1]]
            found.delivered_on = on + timedelta(days=rng.choice([8, 11]) if is_late else rng.choice([3, 7]))
            if marketplace == "demo_outlet" and rng.random() < 0.2:
                found.returned = {rng.randrange(len(items))}
        self.orders[marketplace, found.order_id] = found
        return found

    def visit(self, on: date) -> dict:
        rng = self.rng
        counts = [rng.choice([0, 1, 3]), rng.choice([0, 0, 1]), rng.choice([0, 0, 1])]
        at = f"{on} {rng.randrange(24):02d}:00+00"
        found = dict.fromkeys(SESSIONS) | {
            "session_id": f"s{next(self.ids)}", "marketplace": "demo_shop", "visitor_id": f"v{rng.randrange(9)}",
            "customer_id": rng.choice([None, "c01", "c02"]), "session_on": on, "started_at": at, "ended_at": at,
            "n_events": sum(counts) + 1, "n_product_views": counts[0], "n_cart_adds": counts[1],
            "n_purchases": counts[2], "campaign": rng.choice([None, "mail", "search"]), "is_bot": rng.random() < 0.15,
            "known_at": at,
        }  # fmt: skip
        self.sessions.append(found)
        return found


def raw_rows(order: Order) -> Iterator[tuple[str, str, dict]]:
    """(source, entity, row) of an order as it is now."""
    at = f"{order.ordered_on} 09:00+00"
    if order.marketplace == "demo_outlet":
        key = {"order_id": order.order_id}
        yield "demo_outlet", "orders", {
            **key, "customer_email": order.customer, "customer_region": "Texas", "ordered_at": at,
            "status": order.status, "currency": "USD",
        }  # fmt: skip
        if order.delivered_on:
            yield "demo_outlet", "shipments", {
                **key, "delivered_at": f"{order.delivered_on} 23:59+00",
                "estimated_delivery_at": f"{order.promised_on} 00:00+00", "_known_on": order.delivered_on,
            }  # fmt: skip
        for number, (product, vendor, units, price) in enumerate(order.items):
            yield "demo_outlet", "order_items", {
                **key, "line": number + 1, "sku": product, "vendor_code": vendor, "quantity": units,
                "unit_price": price, "freight": 1,
            }  # fmt: skip
            if number in order.returned:
                yield "demo_outlet", "refunds", {
                    "refund_id": f"r{order.order_id}", **key, "line": number + 1, "sku": product, "quantity": units,
                    "amount": price, "refunded_at": f"{order.ordered_on + timedelta(days=20)} 10:00+00",
                }  # fmt: skip
        return
    person = f"o{order.order_id}"
    yield "olist", "orders", {
        "order_id": order.order_id, "customer_id": person, "order_status": order.status,
        "order_purchase_timestamp": at,
        "order_delivered_customer_date": f"{order.delivered_on} 10:00+00" if order.delivered_on else None,
        "order_estimated_delivery_date": f"{order.promised_on} 00:00+00" if order.promised_on else None,
        "_known_on": order.delivered_on,
    }  # fmt: skip
    yield "olist", "customers", {
        "customer_id": person, "customer_unique_id": order.customer, "customer_state": "SP"
    }  # fmt: skip
    for number, (product, vendor, _, price) in enumerate(order.items):
        yield "olist", "order_items", {
            "order_id": order.order_id, "order_item_id": number + 1, "product_id": product, "seller_id": vendor,
            "price": price, "freight_value": 2,
        }  # fmt: skip


def write(conn: psycopg.Connection, source: str, entity: str, found: list[dict], known_on: date | None = None) -> None:
    """Rows into raw, each known on its `_known_on`, else on `known_on`."""
    kinds = columns(load_source(source).entities[entity]) if entity != "sessions" else SESSIONS
    whole = []
    for number, row in enumerate(found):
        day = row.pop("_known_on", None) or known_on
        known = {"partition_on": day, "known_at": f"{day} 23:59:59+00", "_file": "test", "_line": number,
                 "_deleted": False}  # fmt: skip
        whole.append(dict.fromkeys(kinds) | (known if entity != "sessions" else {}) | row)
    texts = {
        one: pa.array([None if row[one] is None else str(row[one]) for row in whole], pa.string()) for one in kinds
    }
    copy_table(conn, f"raw_{source}.{entity}", pa.table(texts))


def bring(conn: psycopg.Connection, orders: list[Order]) -> None:
    by_table: dict[tuple[str, str], list[dict]] = {}
    for order in orders:
        for source, entity, row in raw_rows(order):
            by_table.setdefault((source, entity), []).append(
                {"_known_on": row.pop("_known_on", None) or order.known_on, **row}
            )
    for (source, entity), found in by_table.items():
        write(conn, source, entity, found)


def first_nights(world: World) -> None:
    """Sixteen months of both shops."""
    days = (LAST - FIRST).days
    for number in range(620):
        world.order("olist" if number % 5 < 2 else "demo_outlet", FIRST + timedelta(days=world.rng.randrange(days)))
    for number in range(400):
        world.visit(FIRST + timedelta(days=number % 25))
    start = FIRST
    for number, product in enumerate(PRODUCTS["demo_outlet"][:-1]):
        # One product is never listed, one is listed long after it was sold first.
        start = date(2024, 6, 1) if number == 5 else FIRST
        world.categories[product] = [(start, "cups" if number % 2 else "mugs")]
        world.prices[product] = [(start, Decimal(10 + number))]
    world.categories["S0"].append((date(2024, 9, 1), "cups"))
    world.prices["S1"] += [(date(2024, 5, 1), Decimal("12.50")), (date(2024, 5, 20), Decimal(9))]
    with connect("loader") as conn:
        bring(conn, list(world.orders.values()))
        write(conn, "demo_clicks", "sessions", world.sessions)
        for product in world.categories:
            list_product(
                conn, world, product, {start for start, _ in world.categories[product] + world.prices[product]}
            )
        for currency, base in (("USD", 1.1), ("BRL", 5.5)):
            write(conn, "ecb_rates", "rates", [
                {"currency": currency, "rate_on": FIRST + timedelta(days=n),
                 "units_per_eur": f"{base + (n % 50) / 100:.4f}", "_known_on": FIRST + timedelta(days=n)}
                for n in range(0, (NIGHT - FIRST).days + 9, 7)
            ])  # fmt: skip


def list_product(conn: psycopg.Connection, world: World, product: str, days: set[date]) -> None:
    for day in sorted(days):
        write(conn, "demo_outlet", "products", [{
            "sku": product, "name": product, "currency": "USD", "gtin": "4006381333931" if product == "S0" else None,
            "category": [what for start, what in sorted(world.categories[product]) if start <= day][-1],
            "list_price": [what for start, what in sorted(world.prices[product]) if start <= day][-1],
        }], day)  # fmt: skip


def bring_late(
    conn: psycopg.Connection, world: World, name: str, orders: list[Order], came: list[Order], gone: Order | None
) -> None:
    """A night's rows as the loader brings them: what was there before and after, by key, names what is touched."""
    source = load_source(name)
    changes = touched.Changes(conn, source)
    span = (date(2023, 12, 1), NIGHT)
    for entity_name, entity in source.raw_entities.items():
        changes.before(entity_name, entity, columns(entity), *span)
        for order in orders:
            if order.marketplace == name and (order in came or entity_name == "orders"):
                found = [row for _, one, row in raw_rows(order) if one == entity_name]
                write(conn, name, entity_name, [{**row, "_known_on": NIGHT} for row in found])
        if gone and (name, entity_name) == ("demo_outlet", "orders"):
            row = next(row for _, one, row in raw_rows(gone) if one == "orders")
            write(conn, name, entity_name, [{**row, "_deleted": True}], NIGHT)
        if gone and (name, entity_name) == ("demo_outlet", "products"):
            list_product(conn, world, "S1", {date(2024, 8, 1)})
            list_product(conn, world, "S2", {date(2025, 4, 1)})
        changes.after(entity_name, entity, columns(entity), *span)
    changes.write()
    conn.commit()


def late_night(world: World) -> None:
    """A new month begins, and much of the past is not what it was."""
    rng = world.rng
    known = [order for order in world.orders.values() if order.status == "delivered"]
    # Some of them first orders, whose customers so move into another cohort.
    outlet = sorted(
        (one for one in known if one.marketplace == "demo_outlet" and one.customer), key=lambda one: one.ordered_on
    )
    first = list({one.customer: one for one in reversed(outlet)}.values())
    canceled = [*first[:3], *rng.sample([one for one in outlet if one not in first], 12)]
    for order in canceled:
        order.status = "canceled"
    gone = rng.choice([one for one in outlet if one not in canceled])
    del world.orders[gone.marketplace, gone.order_id]
    came = [world.order("demo_outlet", NIGHT - timedelta(days=n)) for n in range(6)]
    came += [world.order("demo_outlet", date(2023, 12, 30), customer) for customer in ("c05", "c11", "new")]
    came += [world.order("olist", date(2024, 7, 7), "c02")]
    came += [world.order("demo_outlet", date(2024, 11, 11), "c01") for _ in range(4)]
    for order in came:
        order.known_on = NIGHT
        order.delivered_on = order.promised_on = None
        order.returned = set()
    world.categories["S1"].append((date(2024, 8, 1), "bowls"))
    world.prices["S2"].append((date(2025, 4, 1), Decimal(5)))
    with connect("loader") as conn:
        for name in ("demo_outlet", "olist"):
            bring_late(conn, world, name, [*canceled, *came], came, gone)
        day = world.sessions[0]["session_on"]
        conn.execute("delete from raw_demo_clicks.sessions where session_on = %s", (day,))
        world.sessions = [one for one in world.sessions if one["session_on"] != day]
        write(conn, "demo_clicks", "sessions", [world.visit(day) for _ in range(5)])
        conn.execute(
            "insert into ops.touched_key (source, thing, key) values ('demo_clicks', 'session_days', %s)", (day,)
        )


@pytest.fixture(scope="module")
def raw(warehouse: Path) -> Iterator[World]:
    prepare()
    empty_raw()
    world = World()
    first_nights(world)
    yield world
    empty_raw()
    with connect() as conn:
        conn.execute("truncate ops.touched_key, ops.touched_work, ops.warehouse_state")


@pytest.fixture(scope="module")
def built(raw: World) -> World:
    build()
    return raw


# --- what pandas says ------------------------------------------------------------------------------


def table(name: str, order_by: str) -> pd.DataFrame:
    """A mart, with exact numbers."""
    with connect() as conn:
        cursor = conn.execute(f"select * from core.{name} order by {order_by}")  # type: ignore[arg-type]
        assert cursor.description
        return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description])


def month(day: date) -> date:
    return day.replace(day=1)


def after(begin: date, n: int) -> date:
    years, months = divmod(begin.month - 1 + n, 12)
    return date(begin.year + years, months + 1, 1)


def cents(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.0001"), ROUND_HALF_UP)


def sold_items(world: World) -> pd.DataFrame:
    """Each item of each order that is there; amounts in the currency of reports as well."""
    rates = {
        (one, day): rate
        for one, day, rate in rows("select currency, rate_on, rate from intermediate.int_currency__rates")
    }
    found = []
    for order in world.orders.values():
        rate = rates.get((CURRENCY[order.marketplace], order.ordered_on))
        for number, (product, vendor, units, price) in enumerate(order.items):
            found.append({
                "marketplace": order.marketplace, "order_id": order.order_id, "customer": order.customer,
                "day": order.ordered_on, "month": month(order.ordered_on), "status": order.status, "product": product,
                "vendor": vendor, "units": units, "amount": units * price,
                "reported": cents(units * price * rate) if rate else Decimal(0),
                "is_returned": number in order.returned, "is_sold": order.status not in NOT_SOLD,
            })  # fmt: skip
    return pd.DataFrame(found)


def category_of(world: World, product: str, day: date) -> str:
    known = sorted(world.categories.get(product, []))
    return ([what for start, what in known if start <= day] or [what for _, what in known[:1]] or ["unknown"])[
        -1 if known and known[0][0] <= day else 0
    ]


def expected_sales(world: World) -> pd.DataFrame:
    items = sold_items(world)
    items = items[items.is_sold]
    items["category"] = [
        category_of(world, product, day) if shop == "demo_outlet" else "unknown"
        for shop, product, day in zip(items.marketplace, items["product"], items.day, strict=True)
    ]
    items["guest"] = items.order_id.where(items.customer.isna())
    found = items.groupby(["day", "marketplace", "vendor", "category"]).agg(
        n_orders=("order_id", "nunique"), n_guest_orders=("guest", "nunique"), n_units=("units", "sum"),
        item_amount=("amount", "sum"), item_reporting_amount=("reported", "sum"),
    )  # fmt: skip
    return found.reset_index()


def check_sales(world: World) -> None:
    want = expected_sales(world)
    have = table("rpt_sales_day", "date_on, marketplace, vendor_id, category")
    assert want.n_guest_orders.sum() > 5
    for mine, theirs in (("day", "date_on"), ("vendor", "vendor_id"), *((one, one) for one in want.columns[3:])):
        # What has no rate has no amount in the currency of reports.
        assert list(want[mine]) == list(have[theirs].fillna(Decimal(0))), mine


def check_cohorts(world: World) -> None:
    items = sold_items(world)
    items = items[items.is_sold & items.customer.notna()]
    seen = 0
    have = {
        (shop, cohort, n): found
        for shop, cohort, n, *found in rows(
            "select marketplace, cohort_month, months_since, n_customers, n_active_customers, n_orders, "
            "item_reporting_amount, retention_share from core.rpt_cohort_month"
        )
    }
    for shop in ("all", "demo_outlet", "olist"):
        mine = items if shop == "all" else items[items.marketplace == shop]
        first = mine.groupby("customer").month.min()
        mine = mine.assign(cohort=mine.customer.map(first))
        newest = mine.month.max()
        for cohort, members in mine.groupby("cohort"):
            n = 0
            while after(cohort, n) <= newest:
                now = members[members.month == after(cohort, n)]
                n_orders = now.groupby(["marketplace", "order_id"]).ngroups
                want = (members.customer.nunique(), now.customer.nunique(), n_orders, sum(now.reported, Decimal(0)))
                *found, retention = have[shop, cohort, n]
                assert tuple(found) == want, (shop, cohort, n)
                assert float(retention) == pytest.approx(want[1] / want[0], abs=1e-6)
                n, seen = n + 1, seen + 1
    assert len(have) == seen


def expected_rfm(world: World) -> dict[tuple[str, date], tuple]:
    """(customer, month) -> quintiles, segment."""
    items = sold_items(world)
    items = items[items.is_sold & items.customer.notna()]
    orders = items.groupby(["customer", "marketplace", "order_id", "day", "month"]).reported.sum().reset_index()
    found: dict[tuple[str, date], tuple] = {}
    begin, newest = orders.month.min(), orders.month.max()
    before: set[str] = set()
    while begin <= newest:
        window = orders[(orders.month <= begin) & (orders.month > after(begin, -12))]
        people = (
            window.groupby("customer").agg(r=("day", "max"), f=("day", "size"), m=("reported", "sum")).reset_index()
        )
        scores = {}
        for keys in (["r", "f", "m"], ["f", "m", "r"], ["m", "f", "r"]):
            ranked = people.sort_values([*keys, "customer"]).customer
            # array_split makes the first groups the larger ones, as a quintile of SQL does.
            for quintile, group in enumerate(np.array_split(ranked.to_numpy(), 5), 1):
                for customer in group:
                    scores.setdefault(customer, []).append(quintile)
        for customer, (r, f, m) in scores.items():
            segment = next(name for pattern, name in SEGMENTS.items() if re.fullmatch(pattern, f"{r}{f}"))
            found[customer, begin] = (r, f, m, segment)
        for customer in before - scores.keys():
            found[customer, begin] = (None, None, None, "lapsed")
        before = set(scores)
        begin = after(begin, 1)
    return found


def check_rfm(world: World) -> None:
    want = expected_rfm(world)
    have = {
        (customer, at): found
        for customer, at, *found in rows(
            "select customer_id, month_on, recency_quintile, frequency_quintile, monetary_quintile, segment, "
            "segment_before from core.rpt_rfm_month"
        )
    }
    assert have.keys() == want.keys()
    assert {segment for *_, segment in want.values()} == {*SEGMENTS.values(), "lapsed"}
    for (customer, at), found in want.items():
        before = want.get((customer, after(at, -1)))
        assert tuple(have[customer, at]) == (*found, before[3] if before else None), (customer, at)
    newest = max(at for _, at in want)
    history: dict[str, list[tuple[date, str]]] = {}
    for (customer, at), (*_, segment) in sorted(want.items()):
        if at < newest:
            known = history.setdefault(customer, [])
            if not known or known[-1][1] != segment:
                known.append((after(at, 1), segment))
    ranges = rows(
        "select customer_id, valid_from, segment, valid_to, is_current from core.dim_customer_segment_history"
    )
    assert sorted(ranges) == sorted(
        (customer, begin, segment, end, end is None)
        for customer, known in history.items()
        for (begin, segment), end in zip(known, [*(start for start, _ in known[1:]), None], strict=True)
    )


def check_pairs(world: World) -> None:
    seen = 0
    for shop in ("demo_outlet", "olist"):
        orders = [one for one in world.orders.values() if one.marketplace == shop and one.status not in NOT_SOLD]
        begin = after(month(max(one.ordered_on for one in orders)), -11)
        baskets = [{item[0] for item in one.items} for one in orders if one.ordered_on >= begin]
        alone = Counter(itertools.chain.from_iterable(baskets))
        both = Counter(pair for basket in baskets for pair in itertools.permutations(sorted(basket), 2))
        n = len(baskets)
        want = {
            pair: (count, count / n, count / alone[pair[0]], count * n / alone[pair[0]] / alone[pair[1]])
            for pair, count in both.items() if count >= 5
        }  # fmt: skip
        have = {
            (product, other): found
            for product, other, *found in rows(
                "select product_id, other_product_id, n_orders, support, confidence, lift from core.rpt_basket_pair "
                f"where marketplace = '{shop}'"
            )
        }
        assert len(both) > len(want) > 6
        assert have.keys() == want.keys()
        for pair, found in want.items():
            assert [float(one) for one in have[pair]] == pytest.approx(found, abs=1e-6), pair
        seen += len(want)
    assert rows("select count(*) from core.rpt_basket_pair") == [(seen,)]


def check_scorecard(world: World) -> None:
    """Beta-binomial by the moments, in floating point."""
    for shop in ("demo_outlet", "olist"):
        orders = [one for one in world.orders.values() if one.marketplace == shop]
        begin = max(one.ordered_on for one in orders) - timedelta(days=364)
        counts = {vendor: dict.fromkeys(("late", "canceled", "returned"), (0, 0)) for vendor in VENDORS[shop]}
        for order in orders:
            for vendor in {item[1] for item in order.items} if order.ordered_on >= begin else ():
                returned = any(order.items[number][1] == vendor for number in order.returned)
                is_delivered = order.status == "delivered" or order.delivered_on is not None
                is_late = bool(order.delivered_on and order.promised_on and order.delivered_on > order.promised_on)
                for measure, n, x in (
                    ("late", order.delivered_on is not None, is_late),
                    ("canceled", True, order.status in NOT_SOLD),
                    ("returned", is_delivered, is_delivered and returned),
                ):
                    trials, events = counts[vendor][measure]
                    counts[vendor][measure] = (trials + n, events + x)
        have = {row["vendor_id"]: row for row in table("rpt_vendor_scorecard", "1, 2").to_dict("records")
                if row["marketplace"] == shop}  # fmt: skip
        assert have.keys() == counts.keys()
        for measure in ("late", "canceled", "returned"):
            n, x = (np.array([counts[vendor][measure][i] for vendor in counts], float) for i in (0, 1))
            mean = x.sum() / n.sum()
            if 0 < mean < 1:
                scatter = (n * (x / n - mean) ** 2).sum() / (mean * (1 - mean))
                rho = (scatter - (len(n) - 1)) / (n.sum() - (n**2).sum() / n.sum() - (len(n) - 1))
            else:
                rho = 0
            strength = min(max(1 / rho - 1, 1), 1000) if rho > 0 else 1000
            for at, vendor in enumerate(counts):
                found = have[vendor]
                assert float(found[f"{measure}_rate"]) == pytest.approx(x[at] / n[at], abs=1e-6)
                assert float(found[f"prior_{measure}_strength"]) == pytest.approx(strength, rel=1e-4)
                assert float(found[f"shrunk_{measure}_rate"]) == pytest.approx(
                    (x[at] + strength * mean) / (n[at] + strength), abs=2e-6
                ), (measure, vendor)


def check_funnel(world: World) -> None:
    sessions = pd.DataFrame(world.sessions)
    people = sessions[~sessions.is_bot].assign(campaign=sessions.campaign.fillna(""))
    people["step"] = 1 + (people[["n_product_views", "n_cart_adds", "n_purchases"]] > 0).cumprod(axis=1).sum(axis=1)
    found = people.groupby(["session_on", "campaign"]).step.agg(
        **{f"s{step}": lambda steps, step=step: int((steps >= step).sum()) for step in (1, 2, 3, 4)}
    )
    have = table("rpt_funnel_day", "date_on, campaign")
    assert (
        found.reset_index().to_numpy().tolist()
        == have[["date_on", "campaign", "n_sessions", "n_view_sessions", "n_cart_sessions", "n_purchase_sessions"]]
        .to_numpy()
        .tolist()
    )
    assert found.s4.sum() > 3
    events = table("fact_event_day", "1")
    assert events.n_sessions.sum() == len(sessions)
    assert events[events.is_bot].n_events.sum() == sessions[sessions.is_bot].n_events.sum() > 0


def check_customers(world: World) -> None:
    items = sold_items(world)
    mine = items[items.customer.notna() & items.is_sold]
    want = mine.groupby("customer").agg(
        n_orders=("order_id", "nunique"), item_reporting_amount=("reported", "sum"), cohort_month=("month", "min")
    )
    sessions = Counter(one["customer_id"] for one in world.sessions if not one["is_bot"])
    have = {row["customer_id"]: row for row in table("rpt_customer_360", "customer_id").to_dict("records")}
    for customer, row in want.iterrows():
        for column in want.columns:
            assert have[customer][column] == row[column], (customer, column)
    latest = max(at for _, at in expected_rfm(world))
    segments = {customer: found[3] for (customer, at), found in expected_rfm(world).items() if at == latest}
    for customer, row in have.items():
        assert row["segment"] == segments.get(customer), customer
        assert row["n_sessions"] == sessions[customer], customer
    assert rows("select sum(n_returns) from core.rpt_customer_360") == [
        (sum(len(one.returned) for one in world.orders.values() if one.customer),)
    ]


def check_prices(world: World) -> None:
    """The product whose price was raised and then lowered."""
    items = sold_items(world)
    found = rows(
        "select valid_from, list_price_amount, previous_list_price_amount, lowest_30_day_amount, "
        "n_units_28_days_before, n_units_28_days_after from core.rpt_price_history where product_id = 'S1' order by 1"
    )

    def units(begin: date, end: date) -> int:
        sold = items[(items["product"] == "S1") & items.is_sold & (items.day >= begin) & (items.day < end)]
        return int(sold.units.sum())

    span = timedelta(days=28)
    prices = [(FIRST, Decimal(11), None, None), (date(2024, 5, 1), Decimal("12.5"), Decimal(11), Decimal(11)),
              (date(2024, 5, 20), Decimal(9), Decimal("12.5"), Decimal(11))]  # fmt: skip
    assert found == [(at, *told, units(at - span, at), units(at, at + span)) for at, *told in prices]


CHECKS = (
    check_sales, check_cohorts, check_rfm, check_pairs, check_scorecard, check_funnel, check_customers, check_prices,
)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_mart_says_what_pandas_says(built: World, check: Any) -> None:
    check(built)


def test_a_lookup_by_day_finds_what_was_known_on_that_day(built: World) -> None:
    found = rows(
        "select day, category, list_price_amount "
        "from (values ('2023-01-01'::date), ('2024-05-19'), ('2024-05-20')) as days (day) "
        "left join core.dim_product_history as history on product_id = 'S1' "
        "and (day >= valid_from or n_version = 1) and (day < valid_to or valid_to is null) order by 1"
    )
    assert found == [
        (date(2023, 1, 1), "cups", Decimal(11)),
        (date(2024, 5, 19), "cups", Decimal("12.5")),
        (date(2024, 5, 20), "cups", Decimal(9)),
    ]


def test_no_thing_has_two_current_rows(built: World) -> None:
    with connect("transformer") as conn, pytest.raises(psycopg.errors.UniqueViolation, match="_current"):
        conn.execute(
            "insert into core.dim_product_history "
            'select (jsonb_populate_record(h, \'{"valid_from": "2030-01-01"}\')).* '
            "from core.dim_product_history h where is_current limit 1"
        )


def test_dimensions_know_where_and_when(built: World) -> None:
    assert rows("select marketplace, country, first_order_on from core.dim_marketplace "
                "where marketplace in ('olist', 'opencart') order by 1") == [
        ("olist", "BR", min(one.ordered_on for one in built.orders.values() if one.marketplace == "olist")),
        ("opencart", "DE", None),
    ]  # fmt: skip
    assert rows("select marketplace, region_name, country, currency from core.dim_geography order by 1") == [
        ("demo_outlet", "Texas", "US", "USD"), ("olist", "São Paulo", "BR", "BRL"),
    ]  # fmt: skip
    assert rows("select fiscal_year, fiscal_quarter, fiscal_month, is_trading_day from core.dim_date "
                "where date_on = '2024-11-09'") == [(2024, 4, 11, False)]  # fmt: skip
    assert rows("select matched_product_id from core.dim_product where product_id in ('S0', 'S7') "
                "order by product_id") == [
        ("gtin:04006381333931",), ("demo_outlet:S7",),
    ]  # fmt: skip


def test_a_night_with_late_rows_leaves_what_pandas_says(built: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = expected_sales(built)
    late_night(built)
    assert dbt.run("build", [], NIGHT) == 0
    assert "touched keys are built" in capsys.readouterr().out
    assert not before.equals(expected_sales(built))
    for check in CHECKS:
        check(built)


def test_a_correction_of_one_old_month_changes_what_depends_on_it(built: World) -> None:
    """Runs after the late night: the months before stay, and so do the ranges that begin in them."""
    canceled = [
        order
        for order in built.orders.values()
        if order.marketplace == "demo_outlet" and order.customer and month(order.ordered_on) == date(2024, 8, 1)
        and order.status == "delivered"
    ][:6]  # fmt: skip
    # One whose orders are all canceled is in no month any more.
    of_customers: dict[str, list] = {}
    for order in built.orders.values():
        if order.customer:
            of_customers.setdefault(order.customer, []).append(order)
    canceled += min(
        (
            own
            for own in of_customers.values()
            if all(one.marketplace == "demo_outlet" and one.ordered_on > date(2024, 8, 31) for one in own)
            and any(one.status == "delivered" for one in own)
        ),
        key=len,
    )
    before = expected_rfm(built)
    for order in canceled:
        order.status = "canceled"
    after_it = expected_rfm(built)
    changed = {at for customer, at in before if before[customer, at] != after_it.get((customer, at))}
    assert {date(2024, 8, 1), date(2025, 5, 1)} <= changed
    assert min(changed) == date(2024, 8, 1)
    assert before.keys() - after_it.keys()
    with connect("loader") as conn:
        bring_late(conn, built, "demo_outlet", canceled, [], None)
    build()
    for check in (check_cohorts, check_rfm, check_pairs, check_customers):
        check(built)
