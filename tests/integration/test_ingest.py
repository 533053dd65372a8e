"""Land, gate and load against a real Postgres and a real lake: counted, repeatable, healed, private."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from expectations.raw import main as gate_main
from include import audit
from include.demo import SMALL, fill
from include.demo.dirt import BROKEN_KINDS
from include.ingest import bronze
from include.ingest.__main__ import main as ingest_main
from include.ingest.extract import extract, span
from include.ingest.pseudonym import pseudonym
from include.ingest.sources import load_source, sources
from include.settings import ROOT, settings
from include.warehouse.engine import connect
from tests import outlet as outlet_files

pytestmark = pytest.mark.integration

DAY = date(2031, 5, 1)
NEXT = date(2031, 5, 2)


@pytest.fixture(scope="module")
def lake(warehouse, tmp_path_factory):
    """A lake of our own, and raw tables that are empty before and after."""
    folder = tmp_path_factory.mktemp("ingest") / "lake"
    os.environ["EMPORIUM_LAKE"] = str(folder)
    settings.cache_clear()
    assert ingest_main(["prepare"]) == 0
    _empty()
    yield folder
    _empty()
    del os.environ["EMPORIUM_LAKE"]
    settings.cache_clear()


def _empty():
    with connect() as conn:
        for source in sources():
            tables = ["sessions" if entity.events else name for name, entity in source.entities.items()]
            for name in (*tables, "_landed"):
                conn.execute(f'truncate {source.raw_schema}."{name}"')
            for name in source.entities:
                conn.execute(f'truncate quarantine."{name}"')
        conn.execute("delete from ops.load_audit")
        conn.execute("delete from ops.quality_result where gate = 'raw'")


def _query(text, *values):
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def _land(source, day, first=None, data=None):
    extra = ["--from", str(first)] if first else []
    extra += ["--data", str(data)] if data else []
    return ingest_main(["land", "--source", source, "--as-of", str(day), *extra])


def _gate(source, day, first=None):
    return gate_main(["--source", source, "--as-of", str(day), *(["--from", str(first)] if first else [])])


def _load(source, day, first=None):
    return ingest_main(["load", "--source", source, "--as-of", str(day), *(["--from", str(first)] if first else [])])


def _all(source, day, first=None, data=None):
    assert _land(source, day, first, data) == 0
    assert _gate(source, day, first) == 0
    assert _load(source, day, first) == 0


def _checksums(source):
    found = _query("select entity, partition_on, n_loaded, checksum from ops.load_audit where source = %s", source)
    return {(entity, day): (n, checksum) for entity, day, n, checksum in found}


def _drop(day, orders=(), payments=()):
    """A day of the outlet; rows of orders as (order_id, email, status, updated hour)."""
    lines = [
        row if isinstance(row, str) else f"{row[0]},{row[1]},Ohio,{DAY}T01:00:00Z,{row[2]},USD,{day}T{row[3]:02}:00:00Z"
        for row in orders
    ]
    outlet_files.drop(day, orders=lines, payments=payments)


def _good(n, first=0):
    return [(f"L{first + i}", f"person{i}@example.org", "created", 9) for i in range(n)]


@pytest.fixture
def outlet(lake):
    """Nothing of the outlet is landed, gated or loaded."""
    _empty()
    yield lake
    for day in (DAY, NEXT):
        for path in (settings().home / "demo" / "outlet" / str(day)).glob("*.csv"):
            path.unlink()


def test_a_broken_row_is_quarantined_with_file_line_and_rule_and_the_rest_lands(outlet):
    bad_status = ("L90", "x@example.org", "lost", 9)
    _drop(DAY, [*_good(60), bad_status, "L91,y@example.org,Ohio"])
    _all("demo_outlet", DAY)
    file = f"demo/outlet/{DAY}/orders.csv"
    found = _query("select source, file, line, rule, payload, partition_on from quarantine.orders order by line")
    assert [row[:4] for row in found] == [
        ("demo_outlet", file, 62, "status_is_known"),
        ("demo_outlet", file, 63, "line_parses"),
    ]
    assert json.loads(found[0][4])["customer_email"] == pseudonym("email", "x@example.org")
    assert found[1][4] == "L91,***@***,Ohio"
    assert _query("select n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit where entity = 'orders'") == [
        (62, 60, 0, 2)
    ]
    assert _query("select count(*) from raw_demo_outlet.orders") == [(60,)]
    # A gate that runs again leaves one row per broken row, and the text of the line that is no row.
    assert _gate("demo_outlet", DAY) == 0
    assert [row[:5] for row in found] == _query(
        "select source, file, line, rule, payload from quarantine.orders order by line"
    )
    # The shop sends the day again, whole: nothing stays behind in the quarantine.
    _drop(DAY, _good(62))
    _all("demo_outlet", DAY)
    assert _query("select * from quarantine.orders") == []


def test_of_several_rows_with_one_key_the_newest_then_the_greatest_stays_wherever_it_stood(outlet):
    rows = [
        *_good(3),
        ("L0", "person0@example.org", "shipped", 12),
        ("L0", "person0@example.org", "approved", 10),
        ("L1", "person1@example.org", "canceled", 9),
    ]
    found = []
    for order in (rows, rows[::-1]):
        _drop(DAY, order)
        _all("demo_outlet", DAY)
        found.append(_query("select order_id, status, known_at, currency from raw_demo_outlet.orders order by 1"))
        assert _query(
            "select n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit where entity = 'orders'"
        ) == [(6, 3, 3, 0)]
    assert found[0] == found[1]
    assert [row[:2] for row in found[0]] == [("L0", "shipped"), ("L1", "created"), ("L2", "created")]


def test_a_batch_above_the_threshold_stops_and_leaves_raw_as_it_was(outlet, capsys):
    _drop(DAY, _good(20))
    _all("demo_outlet", DAY)
    before = _query("select * from raw_demo_outlet.orders order by order_id")
    _drop(DAY, [*_good(20, first=100), *[(f"B{i}", "b@example.org", "lost", 9) for i in range(2)]])
    assert _land("demo_outlet", DAY) == 0
    capsys.readouterr()
    assert _gate("demo_outlet", DAY) == 1
    said = capsys.readouterr().err
    assert f"demo_outlet.orders of {DAY}: 2 of 22 rows (9.1%)" in said
    assert f"status_is_known 2; first: demo/outlet/{DAY}/orders.csv:22" in said
    assert _load("demo_outlet", DAY) == 1
    assert "The raw gate stopped demo_outlet.orders" in capsys.readouterr().err
    assert _query("select * from raw_demo_outlet.orders order by order_id") == before


def test_load_refuses_what_the_gate_has_not_judged(outlet, capsys):
    assert _load("demo_outlet", DAY) == 1
    assert "was never landed" in capsys.readouterr().err
    _drop(DAY, _good(5))
    assert _land("demo_outlet", DAY) == 0
    assert _load("demo_outlet", DAY) == 1
    assert "no verdict" in capsys.readouterr().err
    assert _gate("demo_outlet", DAY) == 0
    _drop(DAY, _good(6))
    assert _land("demo_outlet", DAY) == 0
    assert _load("demo_outlet", DAY) == 1
    assert "landed again after the gate judged it" in capsys.readouterr().err
    assert _query("select count(*) from raw_demo_outlet.orders") == [(0,)]
    # The same content is the same batch, however often it is landed: what was judged of it holds.
    _drop(DAY, _good(5))
    assert _land("demo_outlet", DAY) == 0
    assert _load("demo_outlet", DAY) == 0
    assert _query("select count(*) from raw_demo_outlet.orders") == [(5,)]


def test_a_rerun_of_an_old_day_leaves_the_same_rows_and_later_days_alone(outlet):
    _drop(DAY, _good(30))
    _drop(NEXT, [("L0", "person0@example.org", "shipped", 9), *_good(10, first=50)])
    _all("demo_outlet", NEXT, first=DAY)
    before = _checksums("demo_outlet")
    assert before["orders", DAY][0] == 30
    later = _query("select xmin::text, * from raw_demo_outlet.orders where partition_on = %s order by order_id", NEXT)
    _all("demo_outlet", DAY)
    assert _checksums("demo_outlet") == before
    assert later == _query(
        "select xmin::text, * from raw_demo_outlet.orders where partition_on = %s order by order_id", NEXT
    )
    _drop(DAY, [*_good(29), ("L29", "person29@example.org", "approved", 9)])
    _all("demo_outlet", DAY)
    assert _checksums("demo_outlet")["orders", DAY] != before["orders", DAY]


def test_an_empty_day_is_counted_too(outlet):
    _drop(DAY)
    _all("demo_outlet", DAY)
    assert set(_checksums("demo_outlet")) == {(name, DAY) for name in load_source("demo_outlet").entities}
    assert set(_checksums("demo_outlet").values()) == {(0, "0")}


KILLED = """
import os, signal, sys
import {module} as module
def killed(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
module.{function} = killed
from include.ingest.__main__ import main
main({argv!r})
"""


def _killed_at(module, function, argv):
    code = KILLED.format(module=module, function=function, argv=argv)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


def test_a_kill_between_bronze_and_raw_is_healed_by_a_rerun(outlet, capsys):
    _drop(DAY, _good(20))
    _all("demo_outlet", DAY)
    before = _checksums("demo_outlet")
    rows = _query("select * from raw_demo_outlet.orders order by order_id")
    arguments = ["--source", "demo_outlet", "--as-of", str(DAY)]

    # Bronze is written anew, the books are not: the gate does not judge it, load does not take it.
    _drop(DAY, _good(21))
    _killed_at("include.ingest.land", "_record", ["land", *arguments])
    assert _gate("demo_outlet", DAY) == 1
    assert "is not what was landed" in capsys.readouterr().err
    assert _load("demo_outlet", DAY) == 1
    _drop(DAY, _good(20))
    assert _land("demo_outlet", DAY) == 0
    assert _gate("demo_outlet", DAY) == 0

    # Rows are in raw's transaction, their counts are not: nothing of it is seen.
    _killed_at("include.ingest.load", "record_loads", ["load", *arguments])
    assert _query("select * from raw_demo_outlet.orders order by order_id") == rows
    assert _load("demo_outlet", DAY) == 0
    assert _checksums("demo_outlet") == before


def test_the_audit_finds_a_day_of_bronze_that_is_not_what_was_landed_and_judged(outlet):
    def held():
        with connect() as conn:
            return {line.subject: line for line in audit.batches(conn, DAY) if line.subject.startswith("demo_outlet")}

    _drop(DAY, _good(5))
    _all("demo_outlet", DAY)
    assert set(held()) == {f"demo_outlet.{name}" for name in load_source("demo_outlet").entities}
    assert all(line.is_ok for line in held().values())
    orders = DeltaTable(bronze.uri("demo_outlet", "orders"))

    def is_ok():
        return held()["demo_outlet.orders"].is_ok

    # The row says what batch it is of, and is not what it was.
    orders.update(predicate="order_id = 'L3'", updates={"status": "'shipped'"})
    assert not is_ok()
    assert _land("demo_outlet", DAY) == 0
    assert is_ok()
    # Landed again, with something else, after the gate judged it.
    _drop(DAY, _good(6))
    assert _land("demo_outlet", DAY) == 0
    assert not is_ok()
    assert _gate("demo_outlet", DAY) == 0
    assert is_ok()
    # What is remembered of the landing is not what is there.
    for change in ("n_rows = n_rows + 1", "batch = 'other'"):
        with connect() as conn:
            conn.execute(f"update raw_demo_outlet._landed set {change} where entity = 'orders'")
        assert not is_ok(), change
        assert _land("demo_outlet", DAY) == 0
        assert is_ok()


def test_rows_that_are_there_twice_under_their_batch_are_found_before_anything_is_judged_or_loaded(outlet, capsys):
    _drop(DAY, _good(5))
    _all("demo_outlet", DAY)
    uri = bronze.uri("demo_outlet", "orders")
    write_deltalake(uri, DeltaTable(uri).to_pyarrow_table(), mode="append")
    capsys.readouterr()
    assert (_gate("demo_outlet", DAY), _load("demo_outlet", DAY)) == (1, 1)
    assert capsys.readouterr().err.count(f"Bronze of demo_outlet.orders of {DAY} is not what was landed") == 2
    assert _land("demo_outlet", DAY) == 0
    assert (_gate("demo_outlet", DAY), _load("demo_outlet", DAY)) == (0, 0)


def test_no_address_reaches_the_lake_not_even_its_log(outlet):
    _drop(DAY, [*_good(60), "L91,broken@example.org,Ohio", "L92,Ohio,moved@example.org,x,created,USD,y"])
    assert _land("demo_outlet", DAY) == 0
    files = [path for path in (outlet / "bronze" / "demo_outlet").rglob("*") if path.is_file()]
    text = ""
    for path in files:
        assert b"example.org" not in path.read_bytes()
        if path.suffix == ".parquet":
            text += str(pq.ParquetFile(path).read().to_pylist())
    assert pseudonym("email", "person1@example.org") in text
    assert "@example" not in text
    assert any("_delta_log" in str(path) for path in files)


def test_a_yaml_that_gained_a_column_gets_it_and_a_changed_type_is_refused(outlet, monkeypatch):
    from include.ingest import tables

    source = load_source("demo_outlet")
    _drop(DAY, _good(5))
    _all("demo_outlet", DAY)
    orders = source.entities["orders"]
    column = orders.columns["customer_region"]

    def with_column(name, **change):
        changed = orders.model_copy(update={"columns": {**orders.columns, name: column.model_copy(update=change)}})
        return source.model_copy(update={"entities": {**source.entities, "orders": changed}})

    monkeypatch.setattr(tables, "sources", lambda: [with_column("gift_note")])
    tables.prepare()
    assert _query("select count(*), count(gift_note) from raw_demo_outlet.orders") == [(5, 0)]
    monkeypatch.setattr(tables, "sources", lambda: [with_column("customer_region", type="integer")])
    with pytest.raises(ValueError, match=r"demo_outlet\.yaml: orders\.customer_region is integer.*holds text"):
        tables.prepare()
    with connect() as conn:
        conn.execute("alter table raw_demo_outlet.orders drop column gift_note")


# --- the demo marketplace ------------------------------------------------------------------------


def test_exactly_the_planted_broken_rows_are_quarantined_and_every_row_is_counted(lake):
    _empty()
    fill(SMALL)
    first, last = SMALL.first_day, SMALL.last_day
    for source in ("demo_shop", "demo_outlet"):
        _all(source, last, first)
    # Spark keeps to processes of its own, as in a night.
    for module in ("spark_jobs.stream", "expectations.raw", "spark_jobs.sessions"):
        range_of = ["--source", "demo_clicks", "--as-of", str(last), "--from", str(first)]
        subprocess.run([sys.executable, "-m", module, *range_of], check=True)
    with connect(database="shop") as conn:
        planted = set(
            conn.execute("select entity, file, line from truth.dirt where kind = any(%s)", (list(BROKEN_KINDS),))
        )
        shop_orders = conn.execute("select count(*) from shop.oc_order where date_added < %s", (last,)).fetchone()
    found = set()
    for source in sources("demo"):
        for name in source.entities:
            found |= set(
                _query(f'select %s, file, line from quarantine."{name}" where source = %s', name, source.source)
            )
    assert planted
    assert found == planted
    assert _query("select count(*) from raw_demo_shop.oc_order where date_added < %s", last) == [shop_orders]
    # An address is one pseudonym in the shop, the outlet and the clicks, however it is written.
    shared = _query(
        """select count(*) from (select email from raw_demo_shop.oc_order
           intersect select customer_email from raw_demo_outlet.orders
           intersect select customer_id from raw_demo_clicks.sessions) as shared"""
    )
    assert shared[0][0] > 0
    # The shop's database read again for one day gives the same rows.
    before = _checksums("demo_shop")
    _all("demo_shop", last)
    assert _checksums("demo_shop") == before


# --- the real data sets --------------------------------------------------------------------------


def test_olist_adds_up_to_its_control_totals(lake, shared_data):
    folder = shared_data / "olist"
    first, last = span(load_source("olist"), folder)
    _all("olist", last, first, folder)
    assert [str(value) for value in _query("select sum(price), sum(freight_value) from raw_olist.order_items")[0]] == [
        "10976180.8400",
        "1782492.3300",
    ]
    assert str(_query("select sum(payment_value) from raw_olist.order_payments")[0][0]) == "12890996.3400"
    assert _query(
        """select count(distinct order_id), count(*) filter (where order_delivered_customer_date >= partition_on + 1
                                                      and order_delivered_customer_date >= order_purchase_timestamp)
           from raw_olist.orders"""
    ) == [(80_450, 0)]
    assert _query(
        "select sum(n_in - n_loaded - n_duplicate - n_quarantined) from ops.load_audit where source = 'olist'"
    )
    # One day alone is the same as in the bulk, and disturbs no other.
    before = _checksums("olist")
    _all("olist", date(2018, 5, 1), data=folder)
    assert _checksums("olist") == before
    people = pd.read_csv(next(folder.glob("olist_customers_dataset.csv*")), usecols=["customer_unique_id"], dtype=str)
    one = people["customer_unique_id"][0]
    assert _query(
        "select count(*) > 0 from raw_olist.customers where customer_unique_id = %s", pseudonym("olist", one)
    ) == [(True,)]
    assert not _contains(lake / "bronze" / "olist" / "customers", set(people["customer_unique_id"]))


def _contains(table: Path, values: set[str]) -> bool:
    return any(
        values & set(pq.ParquetFile(path).read(columns=["customer_unique_id"])["customer_unique_id"].to_pylist())
        for path in table.rglob("*.parquet")
    )


def test_online_retails_exact_duplicates_are_counted_and_nothing_else_is_lost(lake, shared_data):
    folder = shared_data / "online_retail"
    first, last = span(load_source("online_retail"), folder)
    _all("online_retail", last, first, folder)
    dump = pd.read_csv(next(folder.glob("OnlineRetail.csv*")), dtype=str, keep_default_na=False)
    assert _query(
        "select sum(n_in), sum(n_loaded), sum(n_duplicate), sum(n_quarantined) from ops.load_audit where source = %s",
        "online_retail",
    ) == [(len(dump), len(dump.drop_duplicates()), int(dump.duplicated().sum()), 0)]


def test_a_load_that_begins_after_the_dump_brings_the_catalogue_and_keeps_its_day(lake, shared_data):
    source, data = load_source("olist"), shared_data / "olist"
    _empty()
    first, last = date(2018, 1, 1), date(2018, 1, 2)

    def sellers(start, end):
        rows = next(one.rows for one in extract(source, start, end, data) if one.entity == "sellers")
        return set(rows["partition_on"].to_pylist()), rows.num_rows

    assert sellers(first, last) == ({first}, 3095)
    assert _land("olist", last, first, data) == 0
    assert sellers(last, last) == (set(), 0), "landed is enough"
    _all("olist", last, first, data)
    assert sellers(last, last) == (set(), 0)
    assert sellers(first, first) == ({first}, 3095)
    assert sellers(date(2016, 9, 4), last) == ({first}, 3095), "once loaded, it keeps its day"
