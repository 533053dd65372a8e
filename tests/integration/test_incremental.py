"""Incremental builds: whatever order days arrive in, what is built by touched keys is what a full refresh builds."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql

from include import analyst, dbt
from include.ingest import deletes, drift, touched
from include.ingest.sources import Column, Entity, Source, load_source, sources
from include.ingest.tables import SESSIONS, columns, prepare
from include.settings import ROOT, settings
from include.warehouse import work
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect
from tests.integration.test_dbt_build import empty_raw, rows

pytestmark = pytest.mark.integration

SEEDS = range(24)
DAYS = [date(2025, 1, 1) + timedelta(days=n) for n in range(5)]
SHARED = ("ecb_rates", "holidays", "weather")
"""Sources whose keys belong to no seed: the first one's rows stand for all."""

CHOICES: dict[str, list] = {
    "order_status_id": [0, 1, 1, 2, 3, 5, 7, 13],
    "code": ["shipping", "sub_total", "USD"],
    "currency": ["USD", "EUR", "BRL"],
    "currency_code": ["USD", "EUR"],
    "currency_value": ["1.0", "1.25"],
    "units_per_eur": ["1.1", "0.5", "4"],
    "return_action_id": [1, 2, 3],
}
MODELS = ["--exclude-resource-type", "test", "--exclude-resource-type", "unit_test"]
PRODUCTS = ("product_id", "sku", "stock_code")
VENDORS = ("vendor_id", "vendor_code", "seller_id", "manufacturer_id")


def value(rng: random.Random, seed: int, source: Source, name: str, entity: Entity, column: Column, day: date) -> Any:
    """Something that the column may hold; ids are the seed's own, few, and shared by the tables of a source."""
    things = {change.column: thing for thing, change in entity.changes.items()}
    is_number = column.type in ("integer", "bigint")

    def one_of(n: int, prefix: str) -> Any:
        at = rng.randrange(n)
        return 10 * seed + at if is_number else f"{prefix}{seed}-{at}"

    if things.get(name) == "orders":
        found = one_of(4, "o")
        return found if is_number or source.source != "online_retail" or rng.random() < 0.7 else f"C{found}"
    if not column.required and rng.random() < 0.15:
        return None
    if things.get(name) == "customers":
        return f"c{seed}-{rng.randrange(3)}"
    if name in PRODUCTS:
        return one_of(3, "p")
    if name == "return_id":
        return one_of(3, "r")
    if name in VENDORS:
        return one_of(2, "v")
    if name in CHOICES and not (name == "order_status_id" and "history" not in str(entity.key) and rng.random() < 0.5):
        return rng.choice(CHOICES[name])
    if name == "order_status_id":
        return rng.choice([0, 1])
    if column.values:
        return rng.choice(column.values)
    if column.pattern and column.pattern.startswith("^[A-Z]"):
        return rng.choice(["USD", "BRL"] if "{3}" in column.pattern else ["BR", "US"])
    if is_number:
        low = max(int(column.min or 0), 1)
        return low + rng.randrange(4) if name not in entity.key else 10 * seed + rng.randrange(4)
    if column.type == "numeric(18,4)":
        return rng.randrange(1, 10_000) / 100
    if column.type == "timestamptz":
        return at(rng.choice([one for one in DAYS if one <= day]), rng)
    if column.type == "date":
        return day
    if column.type == "boolean":
        return rng.random() < 0.8
    return f"t{seed}-{rng.randrange(3)}"


def at(day: date, rng: random.Random) -> datetime:
    return datetime(day.year, day.month, day.day, rng.choice([8, 8, 12, 20]), tzinfo=UTC)


def made(rng: random.Random, seed: int, source: Source, day: date) -> dict[str, dict[tuple, dict]]:
    """Some rows of a day, by entity and key; none where the day brought nothing."""
    found: dict[str, dict[tuple, dict]] = {}
    for name, entity in source.raw_entities.items():
        for _ in range(rng.choice([0, 1, 2, 3])):
            row = {one: value(rng, seed, source, one, entity, about, day) for one, about in entity.columns.items()}
            key = tuple(row[one] for one in entity.key)
            # A row of an order stays with its order, a review with its product: the key decides which one that is.
            whose = f"{source.source}.{name}.{key}"
            if row.get("return_id") is not None:
                whose = f"{source.source}.return.{row['return_id']}"
            belongs = random.Random(zlib.crc32(whose.encode()))
            for change in [entity.changes[thing] for thing in ("orders", "products") if thing in entity.changes]:
                if change.column not in entity.key:
                    row[change.column] = value(belongs, seed, source, change.column, entity,
                                               entity.columns[change.column], day)  # fmt: skip
            known = {"partition_on": day, "known_at": at(day, rng), "_file": f"f{rng.random()}", "_line": 1,
                     "_deleted": rng.random() < 0.1}  # fmt: skip
            found.setdefault(name, {})[key] = row | known
    return found


class World:
    """What each seed's sources say of each day, and the loads that bring it into raw."""

    def __init__(self) -> None:
        self.said: dict[tuple[str, date], dict[int, dict[str, dict[tuple, dict]]]] = {}

    def arrive(self, rng: random.Random, seed: int) -> tuple[str, date]:
        """A day of a source arrives: new, late, changed, without some of its rows, or as it was. Not yet loaded."""
        names = [one.source for one in sources() if one.provides and one.raw_entities
                 and (seed == SEEDS[0] or one.source not in SHARED)]  # fmt: skip
        source, day = load_source(rng.choice(names)), rng.choice(DAYS)
        there = self.said.setdefault((source.source, day), {})
        if (how := rng.random()) < 0.7 or seed not in there:
            there[seed] = made(rng, seed, source, day)
        elif how < 0.9:
            there[seed] = {
                name: {key: row for key, row in found.items() if rng.random() < 0.5}
                for name, found in there[seed].items()
            }
        return source.source, day

    def load(self, conn: psycopg.Connection, name: str, day: date) -> None:
        """Replace a day in raw as the loader does, with its record of what changed."""
        source = load_source(name)
        changes = touched.Changes(conn, source)
        for entity_name, entity in source.raw_entities.items():
            kinds = columns(entity)
            changes.before(entity_name, entity, kinds, day, day)
            conn.execute(
                sql.SQL("delete from {} where partition_on = %s").format(sql.Identifier(f"raw_{name}", entity_name)),
                (day,),
            )
            found = {
                key: row for said in self.said[name, day].values() for key, row in said.get(entity_name, {}).items()
            }
            if found:
                fill(conn, f"raw_{name}.{entity_name}", kinds, list(found.values()))
            deletes.fill_tombstones(conn, source, entity_name, day, day)
            changes.after(entity_name, entity, kinds, day, day)
        changes.write()


def fill(conn: psycopg.Connection, table: str, kinds: dict[str, str], found: list[dict]) -> None:
    texts = {
        one: pa.array([None if row[one] is None else str(row[one]) for row in found], pa.string()) for one in kinds
    }
    copy_table(conn, table, pa.table(texts))


def sessions_arrive(conn: psycopg.Connection, rng: random.Random, seed: int) -> None:
    """A visitor's day is made anew, as spark_jobs.sessions does."""
    day, visitor = rng.choice(DAYS), f"v{seed}-{rng.randrange(2)}"
    conn.execute(
        "delete from raw_demo_clicks.sessions where session_on = %s and visitor_id = %s", (day, visitor)
    )  # fmt: skip
    found = [
        dict.fromkeys(SESSIONS)
        | {"session_id": f"{visitor}-{day}-{n}", "marketplace": "demo_shop", "visitor_id": visitor, "session_on": day,
           "customer_id": rng.choice([None, f"c{seed}-1"]), "started_at": at(day, rng), "ended_at": at(day, rng),
           "n_events": 3, "n_product_views": rng.randrange(3), "n_cart_adds": 0, "n_purchases": 0,
           "campaign": rng.choice([None, "mail"]), "is_bot": rng.random() < 0.2, "known_at": at(day, rng)}
        for n in range(rng.randrange(3))
    ]  # fmt: skip
    if found:
        fill(conn, "raw_demo_clicks.sessions", SESSIONS, found)
    touched.record(conn, "demo_clicks", "session_days", sql.SQL("select {}::text").format(sql.Literal(day)))


@pytest.fixture(scope="module")
def raw(warehouse: Path) -> Iterator[None]:
    prepare()
    empty_raw()
    yield
    empty_raw()
    with connect() as conn:
        conn.execute("truncate ops.touched_key, ops.touched_work, ops.warehouse_state")
    with connect("transformer") as conn:
        for schema in ("core", "intermediate", "staging"):
            for kind, name in conn.execute(
                "select case table_type when 'VIEW' then 'view' else 'table' end, table_name "
                "from information_schema.tables where table_schema = %s and table_name !~ 'probe'",
                (schema,),
            ).fetchall():
                conn.execute(f"drop {kind} if exists {schema}.{name} cascade")  # type: ignore[arg-type]


def build(*options: str) -> None:
    """All models, without their tests: a build that is green."""
    assert dbt.run("build", [*MODELS, *options]) == 0
    with connect("transformer") as conn:
        work.done(conn, dbt.fingerprint(drift.staged(conn)))


def built_tables() -> list[str]:
    return [
        f"{schema}.{name}"
        for schema, name in rows(
            "select schemaname, tablename from pg_tables where schemaname in ('core', 'intermediate', 'staging') "
            "and tablename !~ 'probe|int_touched' order by 1, 2"
        )
    ]


def keep(tables: list[str]) -> None:
    with connect() as conn:
        conn.execute("drop schema if exists kept cascade")
        conn.execute("create schema kept")
        for table in tables:
            conn.execute(f'create table kept."{table}" as table {table}')  # type: ignore[arg-type]


def differences(tables: list[str]) -> dict[str, list[tuple]]:
    """Rows that were kept and are no more, or are and were not kept, a few of each table."""
    found = {}
    with connect() as conn:
        for table in tables:
            names = [
                name
                for (name,) in conn.execute(
                    "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 "
                    "and not attisdropped order by attnum",
                    (table,),
                )
            ]
            listed = ", ".join(names)
            query = (
                f"(select 'incremental', * from (select {listed} from kept.\"{table}\" except all "
                f"select {listed} from {table}) as gone limit 3) union all "
                f"(select 'full', * from (select {listed} from {table} except all "
                f'select {listed} from kept."{table}") as new limit 3)'
            )
            if rest := conn.execute(query).fetchall():  # type: ignore[arg-type]
                found[table] = rest
        conn.execute("drop schema kept cascade")
    return found


@pytest.fixture(scope="module")
def world(raw: None) -> World:
    return World()


def test_any_order_of_arrival_gives_what_a_full_refresh_gives(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    rngs = {seed: random.Random(seed) for seed in SEEDS}

    def arrivals(n: int) -> None:
        with connect("loader") as conn:
            for name, day in dict.fromkeys(world.arrive(rngs[seed], seed) for seed in SEEDS for _ in range(n)):
                world.load(conn, name, day)
                conn.commit()
            for seed in SEEDS:
                sessions_arrive(conn, rngs[seed], seed)

    arrivals(4)
    build()
    capsys.readouterr()
    for night in range(3):
        arrivals(3)
        if night == 1:
            # A build that ends half way, whatever ended it, and more days before the next one.
            half = [
                "--select",
                "staging",
                "intermediate.touched",
                "intermediate.lookups",
                "int_orders__current",
                "fact_order",
            ]
            assert dbt.run("build", [*MODELS, *half]) == 0
            arrivals(2)
        if night == 2:
            # A publication: what other reports know of other rows is then only of this night.
            with connect() as conn:
                conn.execute("delete from ops.unpublished")
        build()
    assert "everything is built" not in capsys.readouterr().out
    tables = built_tables()
    keep(tables)
    # An older version of the model: a home that is upgraded builds everything.
    with connect("transformer") as conn:
        conn.execute("alter table intermediate.int_touched__orders drop column sale_before")
    build("--full-refresh")
    assert differences(tables) == {}


def outlet_order(n: int) -> dict[str, dict]:
    """An order of demo_outlet on a day, and of a customer, of its own: its rows by entity."""
    source = load_source("demo_outlet")
    ordered = datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(days=n)
    told = {"order_id": f"s{n}", "updated_at": ordered, "known_at": ordered, "partition_on": date(2024, 6, 1),
            "_file": "f", "_line": n, "_deleted": False}  # fmt: skip
    own = {
        "orders": {"customer_email": f"s{n}", "customer_region": "US-CA", "ordered_at": ordered, "status": "approved",
                   "currency": "USD"},
        "order_items": {"line": 1, "sku": "p", "vendor_code": "v", "quantity": 2, "unit_price": 10, "freight": 1},
    }  # fmt: skip
    return {name: dict.fromkeys(source.entities[name].columns) | told | row for name, row in own.items()}


def test_whatever_of_an_old_order_changes_is_in_all_sums(world: World) -> None:
    """Each order alone could touch its day and its customer: what no digest holds would be missing from their sums."""
    day = date(2024, 6, 1)
    changes: list[tuple[str, str, Any]] = [
        ("order_items", "unit_price", 11),
        ("order_items", "quantity", 3),
        ("order_items", "freight", 2),
        ("order_items", "sku", "q"),
        ("order_items", "vendor_code", "w"),
        ("orders", "status", "canceled"),
        ("orders", "customer_email", "s99"),
        ("orders", "ordered_at", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("orders", "currency", "BRL"),
        ("orders", "_deleted", True),
        ("orders", "customer_region", "US-NY"),
        ("orders", "status", "shipped"),
    ]
    n_sales = len(changes) - 2
    n_orders = len(changes) + 1
    orders = {n: outlet_order(n) for n in range(n_orders)}
    # The lookback reads the newest day again: that is another one.
    orders[80] = outlet_order(80)
    orders[80]["orders"]["customer_email"] = "newest"
    # A month with two orders, one canceled, that is kept when the next month's sale is another one.
    for n in (40, 42, 70):
        orders[n] = outlet_order(n)
        orders[n]["orders"]["customer_email"] = "twice"
    orders[40]["orders"]["status"] = "canceled"
    # Off before and after, so that no sale is another one; but only one of the two statuses is a cancellation.
    off = {44: "canceled", 46: "unavailable"}
    for n, status in off.items():
        orders[n] = outlet_order(n)
        orders[n]["orders"]["status"] = status
    # Removed before and after: its items' versions keep its day, which is another one then.
    orders[48] = outlet_order(48)
    orders[48]["orders"]["_deleted"] = True
    # The same sale, known later: an item is not known before its order's sale.
    orders[50] = outlet_order(50)
    orders[50]["orders"]["customer_email"] = "later"

    def load(conn: psycopg.Connection) -> None:
        found: dict[str, dict[tuple, dict]] = {}
        for order in orders.values():
            for name, row in order.items():
                key = tuple(row[one] for one in load_source("demo_outlet").entities[name].key)
                found.setdefault(name, {})[key] = row
        world.said["demo_outlet", day] = {-1: found}
        world.load(conn, "demo_outlet", day)
        conn.commit()

    known = {one: orders[0]["orders"][one] for one in ("known_at", "partition_on", "_file", "_line", "_deleted")}
    # So long ago that the report has no quintile of its customer, which would move by the other changes.
    shop_order = dict.fromkeys(load_source("demo_shop").entities["oc_order"].columns) | known | {
        "order_id": 999, "email": "s100", "order_status_id": 1, "total": 10, "currency_code": "USD",
        "currency_value": 1, "date_added": datetime(2022, 6, 1, 12, tzinfo=UTC),
    }  # fmt: skip
    coupon = known | {"coupon_history_id": 999, "order_id": 999, "amount": -1, "code": "c", "name": "spring",
                      "date_added": shop_order["date_added"]}  # fmt: skip
    newest = shop_order | {"order_id": 998, "email": "newest", "date_added": datetime(2024, 3, 1, tzinfo=UTC)}
    # Not placed in the end, so that nothing but its coupon names whose it was: the shop takes that back.
    open_order = shop_order | {"order_id": 997, "email": "s101", "order_status_id": 0}
    taken_back = coupon | {"coupon_history_id": 997, "order_id": 997}
    world.said["demo_shop", day] = {
        -1: {
            "oc_order": {(999,): shop_order, (998,): newest, (997,): open_order},
            "oc_coupon_history": {(997,): taken_back},
        }
    }
    # Two of whom nothing is known but that they are: one leaves, one comes.
    told = dict.fromkeys(load_source("olist").entities["customers"].columns) | known
    known_too = {("k",): told | {"customer_id": "k", "customer_unique_id": "s101"}}
    leaves = {("a",): told | {"customer_id": "a", "customer_unique_id": "leaves"}}
    comes = {("b",): told | {"customer_id": "b", "customer_unique_id": "comes"}}
    world.said["olist", day] = {-1: {"customers": leaves | known_too}}
    with connect("loader") as conn:
        load(conn)
        for source in ("demo_shop", "olist"):
            world.load(conn, source, day)
            conn.commit()
    build()
    assert rows("select n_coupons from core.rpt_customer_360 where customer_id = 's101'") == [(1,)]
    for n, (name, column, value_now) in enumerate(changes):
        orders[n][name][column] = value_now
    orders[70]["order_items"]["quantity"] = 5
    orders[48]["orders"]["ordered_at"] += timedelta(days=1)
    orders[50]["orders"]["known_at"] += timedelta(hours=1)
    orders[44]["orders"]["status"], orders[46]["orders"]["status"] = off[46], off[44]
    refund = dict.fromkeys(load_source("demo_outlet").entities["refunds"].columns) | orders[n_orders - 1]["orders"]
    orders[n_orders - 1]["refunds"] = refund | {
        "refund_id": "sr", "line": 1, "sku": "p", "quantity": 1, "amount": 5,
        "refunded_at": datetime(2024, 1, 20, tzinfo=UTC),
    }  # fmt: skip
    world.said["demo_shop", day][-1]["oc_coupon_history"] = {(999,): coupon}
    world.said["olist", day] = {-1: {"customers": comes | known_too}}
    with connect("loader") as conn:
        load(conn)
        for source in ("demo_shop", "olist"):
            world.load(conn, source, day)
            conn.commit()
    assert dbt.run("build", MODELS) == 0
    buyers = rows("select distinct customer_id from intermediate.int_touched__buyers where customer_id ~ '^s[0-9]'")
    assert sorted(buyers) == sorted([(f"s{n}",) for n in range(n_sales)] + [("s99",)])
    with connect("transformer") as conn:
        work.done(conn, dbt.fingerprint(drift.staged(conn)))
    tables = built_tables()
    keep(tables)
    build("--full-refresh")
    assert differences(tables) == {}
    assert rows("select customer_id from core.dim_customer where customer_id in ('leaves', 'comes')") == [("comes",)]
    # The coupon and the refund are no sale, and of a customer's report nonetheless.
    assert rows("select n_coupons from core.rpt_customer_360 where customer_id = 's100'") == [(1,)]
    assert rows("select n_coupons from core.rpt_customer_360 where customer_id = 's101'") == [(0,)]
    assert rows(f"select n_returns from core.rpt_customer_360 where customer_id = 's{n_orders - 1}'") == [(1,)]


def bring_outlet_orders(world: World, bought: list[tuple[str, datetime]]) -> None:
    """A night after which these are demo_outlet's orders of that day, each of a customer and a moment."""
    day = date(2025, 3, 1)
    found: dict[str, dict[tuple, dict]] = {}
    for n, (customer, ordered_at) in enumerate(bought, start=200):
        order = outlet_order(n)
        order["orders"] |= {"customer_email": customer, "ordered_at": ordered_at}
        for name, row in order.items():
            found.setdefault(name, {})[(f"s{n}", 1) if "line" in row else (f"s{n}",)] = row | {"partition_on": day}
    world.said["demo_outlet", day] = {-2: found}
    with connect("loader") as conn:
        world.load(conn, "demo_outlet", day)
    build()


def test_a_new_month_is_another_segment_of_everybody(world: World) -> None:
    """Whoever lapsed in the month before is in none of the new one: no row of theirs tells that it began."""
    bought = [("here", datetime(2025, 1, 20, tzinfo=UTC)), ("lapses", datetime(2024, 1, 20, tzinfo=UTC))]
    report = "select rfm_month_on, segment from core.rpt_customer_360 where customer_id = 'lapses'"
    bring_outlet_orders(world, bought)
    assert rows(report) == [(date(2025, 1, 1), "lapsed")]
    bring_outlet_orders(world, [*bought, ("later", datetime(2025, 2, 20, tzinfo=UTC))])
    assert rows(report) == [(None, None)]
    bring_outlet_orders(world, bought)
    assert rows(report) == [(date(2025, 1, 1), "lapsed")]
    bring_outlet_orders(world, [])
    assert rows(report) == []


def test_who_is_in_another_segment_by_others_has_that_one_before_the_next_month(world: World) -> None:
    """Who bought nothing, and is where they were in the newest month, is in another segment of the month before it."""
    january, february = (datetime(2025, month, 1, 12, tzinfo=UTC) for month in (1, 2))
    bought = [(f"c{n}", january + timedelta(days=n)) for n in range(1, 11)]
    # Ahead of those in February by all measures, with the order of January and without it.
    ahead = [f"ahead{n}" for n in range(5)]
    bought += [(name, february + timedelta(days=n)) for name in ahead for n in range(6)]
    # Lapsed in January, back in February.
    bought += [(f"back{n}", datetime(2024, 1, 20, n, tzinfo=UTC)) for n in range(10)]
    bought += [(f"back{n}", february + timedelta(days=n, hours=1)) for n in range(10)]
    bring_outlet_orders(world, [*bought, *((name, january) for name in ahead)])
    tables = ["core.rpt_rfm_month", "core.dim_customer_segment_history", "core.rpt_customer_360"]
    keep(tables)
    bring_outlet_orders(world, [*bought, *((f"more{n}", february) for n in range(5))])
    quintiles = ("recency_quintile", "frequency_quintile", "monetary_quintile")
    same = " and ".join(f"before.{name} = there.{name}" for name in quintiles)
    in_february = """select customer_id from kept."core.rpt_rfm_month" as before
        inner join core.rpt_rfm_month as there using (customer_id, month_on) where month_on = '2025-02-01' and """
    assert rows(f"{in_february} {same} and before.segment_before <> there.segment_before")
    assert rows(f"{in_february} not ({same}) and before.segment_before = 'lapsed'")
    keep(tables)
    build("--full-refresh")
    assert differences(tables) == {}
    bring_outlet_orders(world, [])


def test_a_sample_has_all_months_of_its_buyers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    months = [datetime(2024, month, 10, tzinfo=UTC) for month in (1, 3, 12)]
    bring_outlet_orders(world, [*(("often", month) for month in months), ("once", months[0])])
    [(newest,)] = rows("select max(ordered_on) from core.fact_order where customer_id is not null")
    dbt._record_build(newest, is_green=True)
    dbt._save_state()
    monkeypatch.setenv("EMPORIUM_DBT_SCHEMA", "dev_months")
    settings.cache_clear()
    try:
        assert analyst.main(["--select", "int_customers__months", "--days", "30"]) == 0
        sample = rows("select * from dev_months.int_customers__months order by customer_id, month_on, marketplace")
        assert sample == rows(
            f"""select * from intermediate.int_customers__months where customer_id in
                  (select customer_id from intermediate.int_orders__current where ordered_on > '{newest}'::date - 30)
                order by customer_id, month_on, marketplace"""
        )
        assert {row[1] for row in sample} >= {"often"}
        assert "once" not in {row[1] for row in sample}
    finally:
        analyst.clean()
        settings.cache_clear()
        shutil.rmtree(dbt.production_state())
        with connect("transformer") as conn:
            conn.execute("delete from ops.quality_result where gate = 'warehouse' and target = 'core'")
        bring_outlet_orders(world, [])


def test_no_column_of_a_unique_index_is_null(world: World) -> None:
    """By these columns a build tells which rows differ (replace_differing): null equals nothing."""
    found = rows(
        "select c.relnamespace::regnamespace::text, c.relname, a.attname "
        "from pg_index i join pg_class c on c.oid = i.indrelid "
        "join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey) "
        "where i.indisunique and c.relnamespace::regnamespace::text in ('core', 'intermediate', 'staging') "
        "and c.relname !~ 'probe'"
    )
    assert len(found) > 60
    broken = [
        (schema, table, column)
        for schema, table, column in found
        if rows(f"select from {schema}.{table} where {column} is null limit 1")
    ]
    assert broken == []


def an_old_order(world: World) -> tuple[date, str]:
    """A demo_outlet order outside every lookback that one day alone tells of, and the day."""
    told: dict[str, set[date]] = {}
    for (name, day), said in world.said.items():
        for found in said.values() if name == "demo_outlet" else ():
            for (order_id,) in found.get("orders", {}):
                told.setdefault(order_id, set()).add(day)
    old = rows(
        "select order_id from core.fact_order where marketplace = 'demo_outlet' and ordered_on <= "
        "(select max(ordered_on) - 3 from core.fact_order where marketplace = 'demo_outlet') order by 1"
    )
    return next((min(told[order_id]), order_id) for (order_id,) in old if len(told[order_id]) == 1)


def change_status(world: World, day: date, order_id: str, status: str) -> None:
    for found in world.said["demo_outlet", day].values():
        if (order_id,) in found.get("orders", {}):
            found["orders"][order_id,] |= {"status": status, "_deleted": False}
    with connect("loader") as conn:
        world.load(conn, "demo_outlet", day)


def status_of(order_id: str) -> list[tuple]:
    return rows(f"select status from core.fact_order where marketplace = 'demo_outlet' and order_id = '{order_id}'")


def test_a_backfill_of_an_old_day_changes_only_what_depends_on_it(world: World) -> None:
    day, order_id = an_old_order(world)
    change_status(world, day, order_id, "returned")
    [(before,)] = rows("select pg_current_xact_id()::text::bigint")
    build()
    assert status_of(order_id) == [("returned",)]
    recent = "ordered_on > (select max(n.ordered_on) - 2 from core.fact_order as n where n.marketplace = o.marketplace)"
    for table in (
        "fact_order",
        "fact_payment",
        "fact_delivery",
        "fact_refund",
        "version_orders",
        "version_order_items",
    ):
        written = rows(
            f"select distinct marketplace, order_id from core.{table} where xmin::text::bigint >= {before} "
            f"and (marketplace, order_id) not in "
            f"(select marketplace, order_id from core.fact_order as o where {recent} "
            f"union all select marketplace, order_id from core.fact_order_item as o where {recent})"
        )
        assert written in ([], [("demo_outlet", order_id)]), table
    assert rows(f"select count(*) from core.fact_session where xmin::text::bigint >= {before}") == [(0,)]


def test_tests_of_a_night_find_what_is_wrong_in_what_it_built(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """They read no more than what was touched, or noted as another row: what is wrong there is found all the same."""
    day, order_id = an_old_order(world)
    change_status(world, day, order_id, "approved")
    build()
    change_status(world, day, order_id, "canceled")
    assert dbt.run("build", MODELS) == 0
    order = f"marketplace = 'demo_outlet' and order_id = '{order_id}'"
    [(customer,)] = rows(f"select customer_id from core.fact_order where {order}")
    [(somebody, since)] = rows(
        "select customer_id, min(valid_from) from core.dim_customer_segment_history group by 1 order by 1 limit 1"
    )
    assert customer
    history = "dim_customer_segment_history"
    months, people = "customers_months_add_up", "customers_add_up"
    parents = "refers_to_fact_delivery_marketplace__order_id__ref_fact_order_"
    ranges = f"sequential_ranges_{history}_is_current__customer_id"
    n_rows, age = "row_count_within_fact_order_0_2", "fresh_version_orders_3"

    def spoil(*statements: str) -> None:
        with connect() as conn:
            for statement in statements:
                conn.execute(statement)  # type: ignore[arg-type]

    def found(*asked: str, as_of: date = day) -> set[str]:
        names = asked or (months, people, parents, ranges, n_rows, age)
        capsys.readouterr()
        dbt.run("build", ["--exclude-resource-type", "unit_test", "--select", *names], as_of)
        told = capsys.readouterr()
        assert "everything is built" not in told.out
        return {name for name in names if f"test {name}:" in told.out + told.err}

    spoil(f"delete from ops.unpublished where mart in ('{history}', 'fact_order')")
    assert found() == set()
    spoil(
        "insert into ops.publication values ('fact_order', '2020-01-01', 1, 1, '')",
        f"update core.{history} set valid_from = valid_from - 1, valid_to = valid_from - 1 "
        f"where customer_id = '{somebody}' and valid_from = '{since}'",
    )
    # No row of them was noted as another one.
    assert found() == set()
    spoil(
        f"insert into ops.unpublished values ('{history}', jsonb_build_object('customer_id', '{somebody}'))",
        "insert into ops.unpublished values ('fact_order', '{}')",
    )
    assert found() == {ranges, n_rows}
    assert found(age, as_of=date(2030, 1, 1)) == {age}
    # One by one: dbt skips what lies behind a test that fails.
    spoil(f"update core.rpt_customer_360 set n_orders = n_orders + 1 where customer_id = '{customer}'")
    assert found(people) == {people}
    spoil(f"update core.fact_order set status = 'approved' where {order}")
    assert found(months) == {months}
    spoil(
        f"delete from core.fact_order where {order}",
        f"delete from core.fact_delivery where {order}",
        f"insert into core.fact_delivery (order_id, marketplace, known_at) values ('{order_id}', 'demo_outlet', now())",
    )
    assert found(parents) == {parents}
    spoil(
        "delete from ops.publication where target = 'fact_order' and as_of = '2020-01-01'",
        "delete from ops.quality_result where as_of = '2030-01-01'",
        f"delete from ops.quality_result where as_of = '{day}'",
        "delete from ops.unpublished where mart = 'fact_order' and scope = '{}'",
    )
    build("--full-refresh")


def test_the_newest_days_are_read_again_whatever_the_loader_says(world: World) -> None:
    [(recent, status)] = rows(
        "select order_id, status from core.fact_order where marketplace = 'demo_outlet' "
        "order by ordered_on desc, order_id limit 1"
    )
    _, old = an_old_order(world)
    other = "approved" if status != "approved" else "shipped"
    before = status_of(old)
    assert before != [(other,)]
    with connect() as conn:
        conn.execute("update raw_demo_outlet.orders set status = %s where order_id = any(%s)", (other, [recent, old]))
    build()
    assert status_of(recent) == [(other,)]
    assert status_of(old) == before


def test_a_source_without_a_row_is_left_out_of_a_night(
    world: World, warehouse: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Otherwise these builds would be of a part.
    monkeypatch.setattr(dbt, "WHOLE", (*dbt.WHOLE, MODELS[0]))

    def staged() -> set[str]:
        capsys.readouterr()
        build()
        results = json.loads((warehouse / "dbt" / "target" / "run_results.json").read_text())["results"]
        return {one["unique_id"].split(".")[-1] for one in results if ".stg_" in one["unique_id"]}

    everything = staged()
    assert "stg_holidays__holidays" in everything
    with connect() as conn:
        conn.execute("create table kept_holidays as table raw_holidays.holidays")
        conn.execute("delete from raw_holidays.holidays")
    assert everything - staged() == {"stg_holidays__holidays"}
    with connect() as conn:
        conn.execute("insert into raw_holidays.holidays table kept_holidays")
        conn.execute("drop table kept_holidays")
    assert staged() == everything


def test_a_source_is_without_rows_when_none_is_left_and_none_was_taken_out(world: World) -> None:
    def tables(schema: str, like: str) -> list[tuple]:
        return rows(f"select schemaname || '.' || tablename from pg_tables where schemaname = '{schema}' and {like}")

    with connect() as conn:
        schemas = {"olist": "raw_olist", "opencart": "raw_opencart"}
        assert work.without_rows(conn, schemas) == []
        for (table,) in tables("raw_olist", "tablename !~ '^_'"):
            conn.execute(f"delete from {table}")  # type: ignore[arg-type]
        # Staging holds what is to be taken out of it.
        assert work.without_rows(conn, schemas) == []
        for (table,) in tables("staging", "tablename ~ '^stg_olist__'"):
            conn.execute(f"delete from {table}")  # type: ignore[arg-type]
        assert work.without_rows(conn, schemas) == ["olist"]
        conn.execute("insert into ops.touched_work (source, thing, key) values ('olist', 'orders', 'k')")
        assert work.without_rows(conn, schemas) == []
        conn.rollback()


def test_a_report_has_another_persons_review_and_session(world: World) -> None:
    """Of both persons: whose it was, and whose it is."""
    told = "select customer_id, n_reviews, n_sessions from core.rpt_customer_360 where customer_id in ('one', 'two')"
    day = date(2025, 1, 20)
    orders = {n: outlet_order(n) for n in (300, 301)}
    found: dict[str, dict[tuple, dict]] = {}
    for (n, order), customer in zip(orders.items(), ("one", "two"), strict=True):
        order["orders"]["customer_email"] = customer
        for name, row in order.items():
            found.setdefault(name, {})[(f"s{n}", 1) if "line" in row else (f"s{n}",)] = row | {"partition_on": day}
    review = dict.fromkeys(load_source("demo_outlet").raw_entities["reviews"].columns) | {
        "review_id": "r300", "order_id": "s300", "sku": "k", "rating": 4, "partition_on": day,
        "known_at": at(day, random.Random(1)), "reviewed_at": at(day, random.Random(1)), "_file": "f", "_line": 1,
        "_deleted": False,
    }  # fmt: skip
    session = dict.fromkeys(SESSIONS) | {
        "session_id": "s", "marketplace": "demo_shop", "visitor_id": "v", "session_on": day, "n_events": 1,
        "started_at": at(day, random.Random(1)), "ended_at": at(day, random.Random(1)), "n_product_views": 1,
        "n_cart_adds": 0, "n_purchases": 0, "is_bot": False, "known_at": at(day, random.Random(1)),
    }  # fmt: skip

    def load(reviewer: str | None, visitor: str | None) -> list[tuple]:
        reviews = {("r300",): review | {"customer_email": reviewer}} if reviewer else {}
        world.said["demo_outlet", day] = {-3: found | {"reviews": reviews}}
        with connect("loader") as conn:
            world.load(conn, "demo_outlet", day)
            conn.execute("delete from raw_demo_clicks.sessions where session_id = 's'")
            if visitor:
                fill(conn, "raw_demo_clicks.sessions", SESSIONS, [session | {"customer_id": visitor}])
            touched.record(
                conn, "demo_clicks", "session_days", sql.SQL("select {}::text").format(sql.Literal(str(day)))
            )
        build()
        with connect() as conn:
            conn.execute("delete from ops.unpublished")
        return sorted(rows(told))

    assert load("one", None) == [("one", 1, 0), ("two", 0, 0)]
    assert load("two", None) == [("one", 0, 0), ("two", 1, 0)]
    assert load("two", "one") == [("one", 0, 1), ("two", 1, 0)]
    assert load("two", "two") == [("one", 0, 0), ("two", 1, 1)]
    assert load(None, "two") == [("one", 0, 0), ("two", 0, 1)]
    assert load(None, None) == [("one", 0, 0), ("two", 0, 0)]


def test_a_killed_build_leaves_no_query_and_the_next_one_heals(world: World) -> None:
    day, order_id = an_old_order(world)
    change_status(world, day, order_id, "canceled")
    waiting = "select count(*) from pg_stat_activity where application_name = 'emporium-dbt' and state = 'active'"
    command = f"from include import dbt; dbt.run('build', {MODELS!r})"
    with connect() as holder:
        holder.execute("lock table core.fact_delivery in access exclusive mode")
        with subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            until(lambda: rows(f"{waiting} and wait_event_type = 'Lock'") != [(0,)])
            os.kill(process.pid, signal.SIGKILL)
        # The lock is still held: without the check of its client the query would wait for it for ever.
        until(lambda: rows(waiting) == [(0,)])
    assert (order_id,) in rows("select key from ops.touched_work where thing = 'orders' and source = 'demo_outlet'")
    build()
    assert rows("select count(*) from ops.touched_work") == [(0,)]
    assert status_of(order_id) == [("canceled",)]


def test_an_interrupted_build_says_so_and_leaves_no_query(world: World) -> None:
    day, order_id = an_old_order(world)
    change_status(world, day, order_id, "canceled")
    active = "select count(*) from pg_stat_activity where application_name = 'emporium-dbt' and state = 'active'"
    # Not the command itself, which would build all models of the project here.
    # Whoever runs the tests in the background has the signal ignored, and so would the process.
    command = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command += "from include import dbt; dbt.refusal = lambda *_: None; "
    command += f"raise SystemExit(dbt.main(['build', *{MODELS!r}]))"
    with connect() as holder:
        holder.execute("lock table core.fact_delivery in access exclusive mode")
        started = [sys.executable, "-c", command]
        with subprocess.Popen(
            started, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                until(lambda: rows(f"{active} and wait_event_type = 'Lock'") != [(0,)])
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 130
        assert said.endswith("dbt build: interrupted; no query of it is left, and the next one builds the rest\n")
        until(lambda: rows(active) == [(0,)])
    build()
    assert status_of(order_id) == [("canceled",)]


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_two_builds_take_turns(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor() as pool, connect("transformer", autocommit=True) as first:
        first.execute("select pg_advisory_lock(hashtext('emporium.dbt'))")
        second = pool.submit(dbt.run, "build", ["--select", "dim_date", "--exclude-resource-type", "test"])
        until(lambda: "another dbt is building" in capsys.readouterr().out)
        assert not second.done()
        first.execute("select pg_advisory_unlock_all()")
        assert second.result() == 0


@pytest.fixture
def olist(raw: None) -> Iterator[Callable[[list[dict], list[dict]], set[tuple[str, str, str]]]]:
    """Loads orders and customers of one day in place of what was there; returns what this touched: thing, key and the
    table that told of it."""
    source, day = load_source("olist"), date(2017, 1, 1)

    def load(orders: list[dict], customers: list[dict], file: str = "a.csv") -> set[tuple[str, str, str]]:
        nothing = dict.fromkeys([*source.entities["orders"].columns, *source.entities["customers"].columns])
        known = {
            "partition_on": day,
            "known_at": at(day, random.Random(1)),
            "_file": file,
            "_line": 1,
            "_deleted": False,
        }
        with connect("loader") as conn:
            changes = touched.Changes(conn, source)
            for name, found in (("orders", orders), ("customers", customers)):
                entity = source.entities[name]
                kinds = columns(entity)
                changes.before(name, entity, kinds, day, day)
                conn.execute(f"delete from raw_olist.{name} where partition_on = '{day}'")  # type: ignore[arg-type]
                fill(conn, f"raw_olist.{name}", kinds, [nothing | known | row for row in found])
                changes.after(name, entity, kinds, day, day)
            changes.write()
        with connect() as conn:
            told = conn.execute("select thing, key, told_by from ops.touched_key where source = 'olist'").fetchall()
            conn.execute("truncate ops.touched_key")
        return set(told)

    load([], [])
    yield load
    load([], [])


def order(order_id: str, status: str = "created", customer: str = "k1") -> dict:
    return {"order_id": order_id, "customer_id": customer, "order_status": status,
            "order_purchase_timestamp": "2017-01-01 10:00+00"}  # fmt: skip


def test_a_load_touches_what_its_rows_were_and_what_they_are(olist: Callable[..., set]) -> None:
    people = [{"customer_id": "k1", "customer_unique_id": "ann"}, {"customer_id": "k2", "customer_unique_id": "bob"}]
    # A customer's row that is new tells of the orders that name it, as those do themselves.
    everything = {("orders", key, table) for key in "AB" for table in ("orders", "customers")}
    everything |= {("customers", "ann", "customers"), ("customers", "bob", "customers")}
    assert olist([order("A"), order("B", customer="k2")], people) == everything
    # The same again, from another file, changes nothing.
    assert olist([order("B", customer="k2"), order("A")], people, file="b.csv") == set()
    assert olist([order("A", "shipped"), order("B", customer="k2")], people) == {("orders", "A", "orders")}
    # Whoever a customer row is of, and the orders that name it: those it tells of itself.
    moved = [people[0], {"customer_id": "k2", "customer_unique_id": "eve"}]
    assert olist([order("A", "shipped"), order("B", customer="k2")], moved) == {
        ("customers", "bob", "customers"), ("customers", "eve", "customers"), ("orders", "B", "customers"),
    }  # fmt: skip
    assert olist([order("B", customer="k2")], moved) == {("orders", "A", "orders")}


def test_a_first_load_of_many_rows_touches_everything_by_one_key(
    olist: Callable[..., set], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect() as conn:
        conn.execute("truncate raw_olist.orders, raw_olist.customers")
    monkeypatch.setattr(touched, "MANY_ROWS", 1)
    assert olist([order("A"), order("B")], []) == {("orders", "*", "orders")}


def test_a_build_takes_the_keys_that_were_committed_and_no_others(raw: None) -> None:
    def key(conn: psycopg.Connection, name: str, told_by: str = "orders") -> None:
        touched.record(conn, "olist", "orders", sql.SQL("select {}").format(sql.Literal(name)), told_by)

    with connect() as conn:
        conn.execute("truncate ops.touched_key, ops.touched_work")
    with connect("loader") as load, connect("transformer") as build_of_night:
        key(load, "A")
        key(load, "B")
        key(load, "B", "order_items")
        load.commit()
        build_of_night.execute("set lock_timeout = '5s'")
        # A load that is under way touches A again, B by one of two tables, and C: the build may not see its rows.
        key(load, "A")
        key(load, "B", "order_items")
        key(load, "C")
        work.take(build_of_night)
        build_of_night.commit()
        load.commit()
    assert rows("select key, told_by from ops.touched_work") == [("B", "orders")]
    assert rows("select key, told_by from ops.touched_key order by 1") == [
        ("A", "orders"),
        ("B", "order_items"),
        ("C", "orders"),
    ]


def test_what_makes_a_build_whole(raw: None) -> None:
    def why(*keys: str, fingerprint: str = "now") -> str | None:
        with connect("transformer") as conn:
            for one in keys:
                conn.execute("insert into ops.touched_work values ('olist', 'orders', %s)", (one,))
            found = work.why_everything(conn, fingerprint)
            conn.rollback()
        return found

    with connect("transformer") as conn:
        conn.execute("delete from ops.touched_work")
        work.done(conn, "now")
    assert why("A") is None
    assert "changed" in (why(fingerprint="other") or "")
    assert "olist" in (why("*") or "")
    assert "10,001" in (why(*map(str, range(10_001))) or "")
