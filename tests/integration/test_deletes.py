"""Rows that a source removed: by a tombstone column and by comparing keys, from the source to raw and the marts."""

import os
from datetime import date, timedelta

import pyarrow as pa
import pytest

from expectations.raw import main as gate_main
from include import dbt
from include.ingest import connectors
from include.ingest.__main__ import main as ingest_main
from include.ingest.connectors import Batch, Connector
from include.ingest.deletes import fill_tombstones
from include.ingest.sources import load_source
from include.settings import settings
from include.warehouse.engine import connect
from tests.integration.yamls import own_yamls
from tests.outlet import HEADERS, drop

pytestmark = pytest.mark.integration

FIRST = date(2033, 1, 3)
DAYS = [FIRST + timedelta(days=n) for n in range(5)]
EVERY = 2
assert FIRST.toordinal() % EVERY == 0, "the second and fourth day compare nothing"


class Shop(Connector):
    """Rows of a shop that forgets: (id, size) -> (name, day)."""

    name = "forgetful"
    there: dict[tuple[str, str], tuple[str, date]] = {}

    def read(self, first, last):
        rows = [
            {"id": key[0], "size": key[1], "name": name, "mail": f"{key[0]}@example.org", "at": f"{day}T09:00:00Z"}
            for key, (name, day) in self.there.items()
            if first <= day <= last
        ]
        yield Batch("things", rows, file="the shop")

    def keys(self, entity):
        # As a database says it: a number may have zeros in front.
        found = list(self.there)
        return pa.table({"id": [key[0] for key in found], "size": [f"0{key[1]}" for key in found]})


SOURCE = {
    "source": "forgetful", "type": "forgetful", "marketplace": "forgetful", "currency": "EUR",
    "entities": {
        "things": {
            "key": ["id", "size"], "cursor": "at", "deletes": {"by": "keys", "every_days": EVERY},
            "columns": {
                "id": {"required": True}, "size": {"type": "integer", "required": True}, "name": {"required": True},
                "mail": {"pseudonym": "email"}, "at": {"type": "timestamptz", "required": True},
            },
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(warehouse, tmp_path_factory):
    os.environ["EMPORIUM_LAKE"] = str(tmp_path_factory.mktemp("deletes") / "lake")
    settings.cache_clear()
    yield
    del os.environ["EMPORIUM_LAKE"]
    settings.cache_clear()


@pytest.fixture
def shop(lake, tmp_path, monkeypatch):
    """The forgetful shop with ten things of its first day, landed and loaded."""
    monkeypatch.setitem(connectors.OWN, "forgetful", f"{__name__}:Shop")
    connectors.connector_class.cache_clear()
    Shop.there = {(f"t{n}", "1"): ("first", FIRST) for n in range(10)}
    with own_yamls(tmp_path) as edit:
        edit("forgetful", SOURCE)
        assert ingest_main(["prepare"]) == 0
        night(FIRST)
        yield Shop.there
    with connect() as conn:
        conn.execute("drop schema raw_forgetful cascade")
        conn.execute("drop table quarantine.things")
        conn.execute("delete from ops.load_audit where source = 'forgetful'")
        conn.execute("delete from ops.quality_result where target ~ '^forgetful'")
        conn.execute("delete from ops.source_column where source = 'forgetful'")
    settings.cache_clear()
    import shutil

    shutil.rmtree(os.path.join(os.environ["EMPORIUM_LAKE"], "bronze", "forgetful"))


def night(day, source="forgetful"):
    line = ["--source", source, "--as-of", str(day)]
    assert ingest_main(["land", *line]) == 0
    assert gate_main(line) == 0
    assert ingest_main(["load", *line]) == 0


def query(text, *values):
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def versions(key):
    return query(
        "select partition_on, _deleted, name, _file, known_at::text from raw_forgetful.things where id = %s order by 1",
        key,
    )


def test_a_key_that_the_source_forgot_is_deleted_when_keys_are_compared_and_comes_back_as_a_new_version(shop):
    mail = query("select mail from raw_forgetful.things where id = 't3'")
    del shop["t3", "1"]
    night(DAYS[1])
    assert len(versions("t3")) == 1, "no comparison was due"
    night(DAYS[2])
    gone = (DAYS[2], True, "first", "key comparison", f"{DAYS[2]} 23:59:59.999999+00")
    assert versions("t3")[1:] == [gone]
    assert query("select mail from raw_forgetful.things where id = 't3' and _deleted") == mail
    assert query("select n_in, n_loaded, n_quarantined from ops.load_audit where partition_on = %s "
                 "and source = 'forgetful'", DAYS[2]) == [(1, 1, 0)]  # fmt: skip
    # The night again, and an old one: the same rows.
    before = query("select * from raw_forgetful.things order by id, partition_on")
    counted = query("select entity, partition_on, n_in, checksum from ops.load_audit where source = 'forgetful'")
    night(DAYS[2])
    assert query("select * from raw_forgetful.things order by id, partition_on") == before
    again = query("select entity, partition_on, n_in, checksum from ops.load_audit where source = 'forgetful'")
    assert sorted(again) == sorted(counted)
    # Restored from a backup, untouched: there again at the next comparison, with what it was.
    shop["t3", "1"] = ("first", FIRST)
    night(DAYS[3])
    night(DAYS[4])
    assert [row[:3] for row in versions("t3")] == [
        (FIRST, False, "first"), (DAYS[2], True, "first"), (DAYS[4], False, "first"),
    ]  # fmt: skip
    # What was found on the third day is not found anew by what the source has today.
    del shop["t5", "1"]
    night(DAYS[2])
    assert [row[:2] for row in versions("t5")] == [(FIRST, False)]
    assert [row[:2] for row in versions("t3")][1] == (DAYS[2], True)


def test_a_key_that_came_and_went_on_one_day_and_one_that_came_back_by_itself(shop):
    del shop["t1", "1"]
    night(DAYS[2])
    shop["t1", "1"] = ("second", DAYS[3])
    night(DAYS[3])
    assert [row[:3] for row in versions("t1")] == [
        (FIRST, False, "first"), (DAYS[2], True, "first"), (DAYS[3], False, "second"),
    ]  # fmt: skip
    night(DAYS[4])
    assert len(versions("t1")) == 3


def test_a_source_that_lost_its_keys_deletes_nothing_and_says_so(shop, capsys):
    before = query("select count(*) from raw_forgetful.things where not _deleted")
    kept = dict(shop)
    shop.clear()
    line = ["land", "--source", "forgetful", "--as-of", str(DAYS[2])]
    assert ingest_main(line) == 1
    assert "forgetful.things: the source has no keys at all where 10 are known" in capsys.readouterr().err
    shop.update(dict(list(kept.items())[:7]))
    assert ingest_main(line) == 1
    assert "3 of 10 known keys (30.0%) are gone from the source" in capsys.readouterr().err
    assert query("select count(*) from raw_forgetful.things where not _deleted") == before
    shop.update(dict(list(kept.items())[:8]))
    night(DAYS[2])
    assert query("select count(*) from raw_forgetful.things where _deleted") == [(2,)]


def test_a_tombstone_says_what_was_last_known_of_its_key_and_keeps_what_it_says_itself(shop):
    versions = [
        (FIRST, False, "old", "old mail"),
        (DAYS[1], False, "new", "new mail"),
        (DAYS[2], True, None, None),
        (DAYS[3], True, "said with it", None),
        (DAYS[4], True, None, None),
    ]
    with connect("loader") as conn:
        for line, (day, *values) in enumerate(versions, 90):
            conn.execute(
                "insert into raw_forgetful.things (id, size, partition_on, known_at, _file, _line, _deleted, name, "
                "mail) values ('t90', 1, %s, %s, 'test', %s, %s, %s, %s)",
                (day, day, line, *values),
            )
        fill_tombstones(conn, load_source("forgetful"), "things", DAYS[2], DAYS[3])
    found = query("select partition_on, _deleted, name, mail from raw_forgetful.things where id = 't90' order by 1")
    assert found == [
        *versions[:2],
        (DAYS[2], True, "new", "new mail"),
        (DAYS[3], True, "said with it", "new mail"),
        versions[4],
    ], "another day's tombstone is left for its own load"


def test_a_soft_deleted_order_vanishes_with_its_items_and_payments_and_stays_in_the_versions(lake, tmp_path):
    first, second = DAYS[0], DAYS[1]
    headers = HEADERS | {"orders": HEADERS["orders"] + ",deleted_at"}
    with own_yamls(tmp_path) as edit:
        edit("demo_outlet.orders", {
            "deletes": {"by": "column", "column": "deleted_at"},
            "columns": {"deleted_at": {"type": "timestamptz"}, "status": {"required": True}},
        })  # fmt: skip
        assert ingest_main(["prepare"]) == 0
        order = "{},ann@example.org,Ohio,2033-01-02T23:30:00Z,created,USD,2033-01-03T09:00:00Z,"
        drop(first, headers, orders=[order.format("S1"), order.format("S2")],
              order_items=["S1,1,A,V,1,5,0,2033-01-03T09:00:00Z", "S2,1,A,V,1,5,0,2033-01-03T09:00:00Z"],
              payments=["S1,1,card,1,5,2033-01-03T09:00:00Z", "S2,1,card,1,5,2033-01-03T09:00:00Z"])  # fmt: skip
        # The shop says no more than the key and when.
        drop(second, headers, orders=["S1,,,,,,2033-01-04T09:00:00Z,2033-01-04T09:00:00Z"])
        night(first, "demo_outlet")
        night(second, "demo_outlet")
    try:
        assert query("select status, customer_email is not null, _deleted from raw_demo_outlet.orders "
                     "where order_id = 'S1' and partition_on = %s", second) == [("created", True, True)]  # fmt: skip
        assert dbt.run("build", ["--select", "+fact_order", "+fact_order_item", "+fact_payment", "+version_orders",
                                 "+version_order_items", "--exclude-resource-type", "test"]) == 0  # fmt: skip
        for table in ("fact_order", "fact_order_item", "fact_payment"):
            assert query(f"select order_id from core.{table} where order_id in ('S1', 'S2')") == [("S2",)], table
        found = query("select known_on, is_deleted, status from core.version_orders where order_id = 'S1' order by 1")
        assert found == [(first, False, "created"), (second, True, "created")]
        assert query("select ordered_on, is_deleted from core.version_order_items where order_id = 'S1'") == [
            (first - timedelta(days=1), False)
        ], "what was known of the items of the removed order is as it was"
    finally:
        with connect() as conn:
            for name in HEADERS:
                conn.execute(f"truncate raw_demo_outlet.{name}")
            conn.execute("alter table raw_demo_outlet.orders drop column if exists deleted_at cascade")
            conn.execute("truncate raw_demo_outlet._landed")
            conn.execute("delete from ops.load_audit where source = 'demo_outlet'")
