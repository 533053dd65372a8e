"""Events to sessions by the real job on Delta and Postgres: whatever the order of arrival, and after any kill."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from include import audit, lake, ops
from include.ingest import bronze
from include.ingest import sources as yamls
from include.ingest.load import VERDICT
from include.ingest.sources import load_source
from include.ingest.tables import SESSIONS, prepare
from include.services import jars
from include.settings import ROOT, settings
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect
from spark_jobs import sessions
from spark_jobs.session import session
from tests import jvm
from tests.integration.spark_jobs import oracle

pytestmark = pytest.mark.integration

DAYS = [date(2025, 1, 30) + timedelta(days=n) for n in range(3)]
N_ORDERS = 20
YAML = """
source: clicks
type: stream
marketplace: shop
currency: USD
connection: {folder: clicks}
provides: [sessions]
entities:
  events:
    key: [id]
    columns:
      id: {required: true}
      visitor: {required: true}
      person: {pseudonym: email}
      kind: {required: true, in: [view, cart, purchase, search]}
      at: {type: timestamptz, required: true}
      campaign: {}
      agent: {}
    events:
      event_id: id
      visitor_id: visitor
      customer_id: person
      event_type: lower(kind)
      event_at: at
      campaign: campaign
      user_agent: agent
"""
AGENTS = ("Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0", "Mozilla/5.0 (compatible; Googlebot/2.1)", "CUBOT X18", None)

INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def spark(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session with Delta, a lake and a source of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_LAKE", str(tmp_path_factory.mktemp("lake")))
        patch.setenv("EMPORIUM_JARS", os.environ.get("EMPORIUM_JARS", str(ROOT / ".emporium" / "jars")))
        settings.cache_clear()
        folder = tmp_path_factory.mktemp("sources")
        (folder / "clicks.yaml").write_text(YAML)
        patch.setattr(yamls, "FOLDER", folder)
        load_source.cache_clear()
        jars.fetch()
        prepare()
        jvm.end()
        running = session("test-sessions")
        # A handful of rows repays neither compiling a query nor planning it anew half-way: a quarter of the time.
        for name, value in INTERPRETED.items():
            running.conf.set(name, value)
        yield running
        running.stop()
    load_source.cache_clear()
    settings.cache_clear()
    with connect("loader") as conn:
        conn.execute("drop schema raw_clicks cascade")
        conn.execute("delete from ops.load_audit where source = 'clicks'")
        conn.execute("delete from quarantine.events where source = 'clicks'")
        conn.execute("delete from ops.quality_result where target = 'clicks.events'")


@pytest.fixture(autouse=True)
def nothing_yet(spark: SparkSession) -> None:
    forget("bronze", "silver")
    with connect("loader") as conn:
        conn.execute("delete from raw_clicks._landed")
        conn.execute("delete from quarantine.events where source = 'clicks'")


def forget(*layers: str) -> None:
    for layer in layers:
        shutil.rmtree(lake.table_uri(layer), ignore_errors=True)
    with connect("loader") as conn:
        conn.execute("truncate raw_clicks.sessions")


def click(event_id: str, visitor: str, at: datetime, **values: str | None) -> Row:
    return {"id": event_id, "visitor": visitor, "kind": "view", "at": at.isoformat()} | values


def arrive(day: date, rows: list[Row], *, is_fine: bool = True) -> None:
    """Land the rows as the day's, in this order, and let the gate pass them (or not)."""
    source = load_source("clicks")
    entity = source.entities["events"]
    whole = [
        row | {"partition_on": day, "known_at": datetime(day.year, day.month, day.day, tzinfo=UTC), "_file": "f",
               "_line": number, "_deleted": False}
        for number, row in enumerate(rows, 1)
    ]  # fmt: skip
    bronze.replace("clicks", "events", entity, pa.Table.from_pylist(whole, schema=bronze.schema(entity)), day, day)
    batch = bronze.batches("clicks", "events", day, day).get(day, bronze.NOTHING)
    with connect("loader") as conn:
        conn.execute("delete from raw_clicks._landed where partition_on = %s", (day,))
        landed = {"entity": ["events"], "partition_on": [day], "n_rows": [len(rows)], "n_broken": [0], "batch": [batch]}
        copy_table(conn, "raw_clicks._landed", pa.table(landed))
        seen = {"share": 0.0, "batch": batch}
        verdict = ops.Check("raw", "clicks.events", day, VERDICT, "critical", is_fine, len(rows), 0, seen)
        ops.record_checks(conn, [verdict])


def build(spark: SparkSession, first: date, last: date | None = None) -> list[sessions.Built]:
    return list(sessions.build(spark, load_source("clicks"), first, last or first))


def in_lake(table: str = "sessions") -> list[Row]:
    rows = lake.read(lake.table_uri("silver", table)).to_pylist()
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def in_warehouse() -> list[tuple]:
    with connect("loader") as conn:
        return conn.execute("select * from raw_clicks.sessions order by session_id").fetchall()


def agree() -> None:
    """The warehouse has the sessions that the lake has."""
    rows = sorted((tuple(row[name] for name in SESSIONS) for row in in_lake()), key=lambda row: row[0])
    assert in_warehouse() == rows


def alike(rows: list[Row], columns: Sequence[str]) -> list[tuple]:
    """The columns of the rows in an order of their own; times in one zone."""
    found = [tuple(row[name].timestamp() if name.endswith("_at") else row[name] for name in columns) for row in rows]
    return sorted(found, key=str)


def visits(seed: int) -> list[Row]:
    """Clicks of some visitors around two midnights, full of gaps near 30 minutes, campaigns and ties."""
    dice = random.Random(seed)
    found = []
    for visitor in range(5):
        at = datetime(2025, 1, 30, dice.choice([9, 22]), tzinfo=UTC)
        for number in range(9):
            at += timedelta(seconds=dice.choice([0, 300, 1799, 1800, 2400, 20_000]))
            found.append(
                click(
                    f"{number}", f"v{visitor}", at, person=dice.choice([None, "ann", "bob"]),
                    kind=dice.choice(["view", "cart", "search", "PURCHASE"]),
                    campaign=dice.choice([None, None, "", "mail", "ads"]), agent=AGENTS[-1 if visitor else 1],
                )
            )  # fmt: skip
    return found


def test_any_order_of_arrival_gives_the_sessions_of_a_full_refresh(spark: SparkSession) -> None:
    clicks = visits(seed=4)
    dice = random.Random(20)
    arrivals: dict[date, list[Row]] = defaultdict(list)
    # Twenty orders side by side, each with visitors of its own: split over days, late, early, sent twice, shuffled.
    for order in range(N_ORDERS):
        for row in clicks:
            mine = row | {"visitor": f"{order:02}-{row['visitor']}"}
            for day in [dice.choice(DAYS), *dice.choices(DAYS, k=dice.choice([0, 0, 1, 2]))]:
                arrivals[day].append(mine)
    for day in DAYS:
        dice.shuffle(arrivals[day])
        arrive(day, arrivals[day])
        (built,) = build(spark, day)
        assert built.n_in == len(arrivals[day]) == built.n_loaded + built.n_duplicate
        assert built.n_duplicate > 0
        agree()
    step_by_step, events, warehouse = in_lake(), in_lake("events"), in_warehouse()

    columns = ("visitor_id", "session_on", "started_at", "ended_at", "customer_id", "campaign", "n_events",
               "n_cart_adds", "n_purchases", "is_bot")  # fmt: skip
    by_order = defaultdict(list)
    for row in step_by_step:
        order, visitor = row["visitor_id"].split("-")
        by_order[order].append(row | {"visitor_id": visitor})
    told = {order: alike(rows, columns) for order, rows in by_order.items()}
    assert len(told) == N_ORDERS
    assert [order for order, found in told.items() if found != told["00"]] == []
    wanted = oracle.visits(
        [
            {"source": "clicks", "marketplace": "shop", "visitor_id": row["visitor"], "event_id": row["id"],
             "event_at": (at := datetime.fromisoformat(row["at"])), "event_on": at.date(), "customer_id": row["person"],
             "event_type": row["kind"].lower(), "campaign": row["campaign"] or None, "known_on": DAYS[0],
             "known_at": at, "is_bot_agent": "Googlebot" in (row["agent"] or "")} for row in clicks
        ], date.max,
    )  # fmt: skip
    for row in wanted:
        row |= {"n_cart_adds": row["cart"], "n_purchases": row["purchase"]}
    assert told["00"] == alike(wanted, columns)
    assert {row["is_bot"] for row in wanted} == {True, False}

    forget("silver")
    build(spark, DAYS[0], DAYS[-1])
    assert in_lake("events") == events
    assert in_warehouse() == warehouse
    agree()
    assert in_lake() == step_by_step


def test_a_kill_at_any_step_is_healed_by_the_next_run(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    day = DAYS[0]
    at = datetime(2025, 1, 30, 12, tzinfo=UTC)
    arrive(day, [click("1", "stays", at), click("1", "goes", at), click("2", "stays", at + timedelta(hours=1))])
    build(spark, day)
    assert len(in_warehouse()) == 3
    # The day is landed again: a visitor is gone, and a late event joins two sessions.
    arrive(day, [click(f"{n}", "stays", at + timedelta(minutes=20 * n)) for n in range(4)])

    class KilledError(BaseException):
        pass

    # Rebuilt with other events, merged but not copied, copied but not committed.
    for step in ("_refresh", "_copy", "record_loads"):
        with monkeypatch.context() as patch:

            def kill(*_: object) -> None:
                raise KilledError

            patch.setattr(sessions, step, kill)
            with pytest.raises(KilledError):
                build(spark, day)
        assert len(in_warehouse()) == 3, step
    (built,) = build(spark, day)
    assert (built.n_loaded, built.n_sessions) == (4, 1)
    agree()
    assert [(row["visitor_id"], row["n_events"]) for row in in_lake()] == [("stays", 4)]
    assert sessions._touched(spark, "clicks").count() == 0


def test_rows_in_quarantine_make_no_session_and_every_row_is_counted(spark: SparkSession) -> None:
    day, at = DAYS[0], datetime(2025, 1, 30, 12, tzinfo=UTC)
    arrive(day, [click("1", "v", at), click("1", "v", at), click("2", "v", at, kind="dance"), {"_error": "no JSON"}])
    with connect("loader") as conn:
        for line in (3, 4):
            conn.execute(
                "insert into quarantine.events (source, file, line, rule, partition_on, rules) "
                "values ('clicks', 'f', %s, 'kind_is_known', %s, '{kind_is_known}')",
                (line, day),
            )
    (built,) = build(spark, day)
    assert (built.n_in, built.n_loaded, built.n_duplicate, built.n_quarantined) == (4, 1, 1, 2)
    with connect() as conn:
        lines = [line for line in audit.loads(conn, day) if line.subject == "clicks.events"]
    assert [(line.is_ok, line.detail) for line in lines] == [(True, "4 in = 1 loaded + 1 duplicate + 2 quarantined")], (
        lines
    )
    # Mended, it is an event like the others.
    with connect("loader") as conn:
        conn.execute(
            "update quarantine.events set is_mended = true, payload = %s where source = 'clicks' and line = 3",
            ('{"id": "2", "visitor": "v", "kind": "cart", "at": "2025-01-30T12:10:00+00:00"}',),
        )
    (built,) = build(spark, day)
    assert (built.n_loaded, built.n_duplicate, built.n_quarantined) == (2, 1, 1)
    assert [(row["n_events"], row["n_cart_adds"]) for row in in_lake()] == [(2, 1)]
    agree()


def test_nothing_is_built_of_a_day_that_the_gate_stopped(spark: SparkSession) -> None:
    arrive(DAYS[0], [click("1", "v", datetime(2025, 1, 30, 12, tzinfo=UTC))], is_fine=False)
    with pytest.raises(RuntimeError, match=r"raw gate stopped clicks\.events of 2025-01-30"):
        build(spark, DAYS[0])
    assert not lake.exists(sessions.events_uri())


def test_a_day_that_the_gate_stopped_stops_the_chunks_before_it_too(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "ROWS_PER_CHUNK", 1)
    for day in DAYS:
        at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        arrive(day, [click("1", "v", at)], is_fine=day != DAYS[2])
    with pytest.raises(RuntimeError, match=r"raw gate stopped clicks\.events of 2025-02-01"):
        build(spark, DAYS[0], DAYS[2])
    assert not lake.exists(sessions.events_uri())


def test_a_day_that_is_landed_again_between_two_chunks_is_not_built(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "ROWS_PER_CHUNK", 1)
    at = {day: datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in DAYS[:2]}
    for day in DAYS[:2]:
        arrive(day, [click("1", "v", at[day])])
    chunks = sessions.build(spark, load_source("clicks"), DAYS[0], DAYS[1])
    assert next(chunks).n_loaded == 1
    arrive(DAYS[1], [click("2", "v", at[DAYS[1]])], is_fine=False)
    with pytest.raises(RuntimeError, match=r"raw gate stopped clicks\.events of 2025-01-31"):
        list(chunks)
    assert [row["known_on"] for row in in_lake("events")] == [DAYS[0]]


def test_an_event_without_a_time_is_an_error_that_names_its_line(spark: SparkSession) -> None:
    arrive(DAYS[0], [click("1", "v", datetime(2025, 1, 30, 12, tzinfo=UTC)) | {"at": "yesterday"}])
    with pytest.raises(Exception, match="event_at is null in f:1"):
        build(spark, DAYS[0])
