"""Feature views by the real command on Delta: killed, rerun, after later news; and the gate over them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from expectations import features as gate
from include import lake
from include.services import jars
from include.settings import ROOT, settings
from include.warehouse.engine import connect
from include.warehouse.export import export
from spark_jobs.events import SCHEMA as EVENTS
from spark_jobs.sessionise import SCHEMA as SESSIONS
from tests.integration.spark_jobs import oracle
from tests.integration.spark_jobs.world import World, item, order, random_world
from tests.integration.versions import empty_version_tables, insert

pytestmark = pytest.mark.integration

AS_OF = date(2025, 6, 19)
CUTOFFS = [date(2025, 5, 1), date(2025, 6, 1), AS_OF]
VIEWS = ("user_behavior", "vendor_performance", "demand_history")
COMMAND = [sys.executable, "-m", "spark_jobs.features", *VIEWS, "--as-of", AS_OF.isoformat()]

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Nights:
    """The same night three times: as it was, killed half-way after later news came, and rerun."""

    world: World
    first: Rows
    rerun: Rows
    output: str
    seconds_until_spark_was_gone: float


@pytest.fixture(scope="module")
def nights(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_LAKE", str(tmp_path_factory.mktemp("lake")))
        patch.setenv("EMPORIUM_TRAINING_CUTOFFS", "2")
        patch.setenv("EMPORIUM_JARS", os.environ.get("EMPORIUM_JARS", str(ROOT / ".emporium" / "jars")))
        settings.cache_clear()
        jars.fetch()
        world = random_world(seed=7, n_orders=200)
        with empty_version_tables():
            for table, rows in world.items():
                if table != "events":
                    insert(table, rows)
            fill_silver(world["events"])
            export()
            done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
            first = snapshot()
            later_news()
            export()
            seconds = run_and_kill()
            again = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=600)
            assert again.returncode == 0, again.stderr
            yield Nights(world, first, snapshot(), done.stdout, seconds)
    settings.cache_clear()


def fill_silver(events: list[dict[str, Any]]) -> None:
    """The events as the lake holds them, and the sessions of now: the features read both."""
    text, moment, day = pa.string(), pa.timestamp("us", tz="UTC"), pa.date32()
    kinds = {"string": text, "timestamp": moment, "date": day, "boolean": pa.bool_(), "int": pa.int32()}

    def schema(ddl: str) -> pa.Schema:
        return pa.schema([(name, kinds[kind]) for name, kind in (part.split() for part in ddl.split(", "))])

    write_deltalake(lake.table_uri("silver", "events"), pa.Table.from_pylist(events, schema=schema(EVENTS)))
    last_known: dict[tuple, date] = {}
    for row in events:
        visitor_day = (row["source"], row["visitor_id"], row["event_on"])
        last_known[visitor_day] = max(last_known.get(visitor_day, date.min), row["known_on"])
    counts = {"n_product_views": "view", "n_cart_adds": "cart", "n_purchases": "purchase"}
    made = [
        visit
        | {name: visit[of] for name, of in counts.items()}
        | {
            "session_id": str(number),
            "day_known_on": last_known[visit["source"], visit["visitor_id"], visit["session_on"]],
            "session_month": visit["session_on"].replace(day=1),
        }
        for number, visit in enumerate(oracle.visits(events, date.max))
    ]
    write_deltalake(lake.table_uri("silver", "sessions"), pa.Table.from_pylist(made, schema=schema(SESSIONS)))


def snapshot() -> Rows:
    rows = {view: lake.read(lake.table_uri("features", view)).to_pylist() for view in VIEWS}
    return {view: sorted(found, key=lambda row: [row[key] for key in gate.KEYS[view]]) for view, found in rows.items()}


def later_news() -> None:
    """Versions that became known after the day: new orders, and every tenth old one cancelled, its items corrected."""
    day = AS_OF - timedelta(days=4)
    for n, known_on in enumerate([AS_OF + timedelta(days=1), AS_OF + timedelta(days=30)]):
        insert("orders", [order(f"new-{n}", day, known_on, customer_id="customer-1")])
        insert("order_items", [item(f"new-{n}", day, known_on)])
    with connect("transformer") as conn:
        conn.execute(
            """
            insert into core.version_orders
            select distinct on (marketplace, order_id) marketplace, order_id, customer_id, ordered_at, ordered_on,
              'canceled', approved_at, handed_over_at, delivered_at, estimated_delivery_at,
              false, timestamptz '2025-06-20 10:00+00', date '2025-06-20'
            from core.version_orders where order_id ~ '0$' and known_on < '2025-06-20'
            order by marketplace, order_id
            """
        )
        conn.execute(
            """
            insert into core.version_order_items
            select distinct on (marketplace, order_id, order_item_id) marketplace, order_id, order_item_id, 'other',
              vendor_id, 99, 999, freight_amount, ordered_on, false, timestamptz '2025-06-21 10:00+00',
              date '2025-06-21'
            from core.version_order_items where known_on < '2025-06-20'
            order by marketplace, order_id, order_item_id
            """
        )


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def run_and_kill() -> float:
    """Start the command, ``kill -9`` it while it builds; seconds until no process of its Spark is left."""
    process = subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("spark:")
    time.sleep(2)
    spark = children(process.pid)
    assert spark, "Spark's JVM is not a child of the command"
    assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()
    started = time.monotonic()
    while any(alive(pid) for pid in spark):
        assert time.monotonic() - started < 60, "the JVM outlives the command that was killed"
        time.sleep(0.1)
    return time.monotonic() - started


def test_rerun_after_a_kill_and_later_news_leaves_the_same_rows(nights: Nights) -> None:
    assert nights.rerun == nights.first
    assert nights.seconds_until_spark_was_gone < 30


def test_views_hold_what_the_oracle_knew(nights: Nights) -> None:
    behavior = {(row["as_of"], row["customer_id"]): row for row in nights.first["user_behavior"]}
    tables = (nights.world[name] for name in ("orders", "order_items", "products", "events"))
    orders, items, products, events = tables
    expected = {
        (cutoff, customer): row
        for cutoff in CUTOFFS
        for customer, row in oracle.user_behavior(orders, items, products, events, cutoff).items()
    }
    assert behavior.keys() == expected.keys()
    for key, features in expected.items():
        assert {name: behavior[key][name] for name in features} == pytest.approx(features, abs=1e-9), key
    vendors = oracle.vendor_performance(orders, items, AS_OF)
    assert {(row["marketplace"], row["vendor_id"]) for row in nights.first["vendor_performance"]} == vendors.keys()
    first_day = AS_OF - timedelta(days=settings().feature_history_days - 1)
    demand = oracle.demand(orders, items, AS_OF, first_day)
    units = sum(row["units_delta"] for row in nights.first["demand_history"])
    assert units == sum(cell["units"] for cell in demand.values()) > 0


def test_each_as_of_is_one_file_and_says_how_many_rows(nights: Nights) -> None:
    for view, days in (("user_behavior", CUTOFFS), ("demand_history", [AS_OF])):
        folder = Path(lake.table_uri("features", view))
        for day in days:
            live = [uri for uri in _live_files(view) if f"as_of={day}" in uri]
            assert len(live) == 1, (view, day, live)
        assert not (folder / "metastore_db").exists()
    assert f"lake/features/user_behavior as of {AS_OF}: {len(nights.first['user_behavior'])} rows" in nights.output
    assert not (ROOT / "metastore_db").exists()
    assert not (ROOT / "spark-warehouse").exists()


def _live_files(view: str) -> list[str]:
    from deltalake import DeltaTable

    return DeltaTable(lake.table_uri("features", view)).file_uris()


def test_gate_passes_what_was_built_and_rejects_a_leak(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate.main(["--as-of", AS_OF.isoformat()]) == 0
    uri = lake.table_uri("features", "user_behavior")
    good = lake.read(uri, filters=[("as_of", "in", [AS_OF])])
    days = good["last_order_on"].to_pylist()
    leaky = good.set_column(
        good.schema.get_field_index("last_order_on"), good.schema.field("last_order_on"),
        [[AS_OF + timedelta(days=1), *days[1:]]],
    )  # fmt: skip
    lake.replace_partition(uri, leaky.slice(0, good.num_rows - 1), "as_of", [AS_OF])
    try:
        assert gate.main(["--as-of", AS_OF.isoformat()]) == 1
        said = capsys.readouterr().err
        assert "last_order_is_not_after_as_of is broken by 1" in said
        assert "one_row_per_customer_with_an_order is broken by 1" in said
        with connect("transformer") as conn:
            failed = conn.execute(
                "select rule from ops.quality_result where gate = 'features' and as_of = %s and not is_passed "
                "and severity = 'critical' order by rule",
                (AS_OF,),
            ).fetchall()
        assert [row[0] for row in failed] == ["last_order_is_not_after_as_of", "one_row_per_customer_with_an_order"]
    finally:
        lake.replace_partition(uri, good, "as_of", [AS_OF])


def test_gate_without_views_says_what_to_run(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "table_uri", lambda *parts: str(Path("/nonexistent", *parts)))
    with pytest.raises(FileNotFoundError, match="run the step that writes it first"):
        gate.main(["--as-of", AS_OF.isoformat()])
