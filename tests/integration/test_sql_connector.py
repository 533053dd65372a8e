"""The SQL connector on a real MariaDB and a real Postgres: one moment, no lock, no loss, nothing written."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
import yaml

from include.dates import start_of
from include.ingest import bronze
from include.ingest import land as landing
from include.ingest.connectors import SourceError, connector
from include.ingest.connectors import sql as connector_module
from include.ingest.extract import extract, extracts
from include.ingest.sources import Source
from include.ingest.tables import prepare
from include.settings import settings
from include.warehouse.engine import connect, owner_dsn
from tests.integration.mariadb import PASSWORD, MariaDB

pytestmark = pytest.mark.integration

DAY = date(2024, 3, 31)  # on which Berlin's clocks skip from two to three
NEXT = DAY + timedelta(days=1)

YAML = """
source: tried
type: sql
marketplace: tried
currency: EUR
time_zone: Europe/Berlin
connection: {dsn_secret: tried, names: {prefix: oc_}}
entities:
  orders:
    read: {table: "{prefix}orders", changed: changed_at}
    key: [order_id]
    cursor: added_at
    columns:
      order_id: {type: integer, required: true}
      name: {}
      total: {type: "numeric(18,4)"}
      added_at: {type: timestamptz, required: true}
      changed_at: {type: timestamptz}
      moment: {type: timestamptz}
      gone: {optional: true}
    ignore: [note]
  items:
    read:
      query: >-
        select i.*, o.added_at from {prefix}items i join {prefix}orders o on o.order_id = i.order_id
        where i.name is null or i.name not like '50%'
    key: [item_id]
    cursor: added_at
    columns:
      item_id: {type: integer, required: true}
      order_id: {type: integer}
      name: {}
      added_at: {type: timestamptz}
  languages:
    read: {table: languages, snapshot: true}
    key: [code]
    columns: {code: {required: true}, name: {}}
"""

TABLES = """
create table oc_orders (order_id int primary key, name varchar(40), total decimal(15,4), added_at datetime,
  changed_at datetime, moment timestamp null, note text);
create table oc_items (item_id int primary key, order_id int, name varchar(40));
create table languages (code varchar(5) primary key, name varchar(20))
"""

ROWS = """
insert into oc_orders values (1, 'Größe 😀', 1.5, '2024-03-31 01:30:00', null, '2024-03-31 03:30:00', 'x');
insert into oc_orders values (2, null, 2, '2024-03-31 02:00:00', '2024-04-02 12:00:00', null, 'x');
insert into oc_orders values (3, 'late', 3, '2024-04-01 01:59:59', null, null, 'x');
insert into oc_orders values (4, 'next', 4, '2024-04-01 02:00:00', null, null, 'x');
insert into oc_orders values (5, 'undated', 5, null, null, null, 'x');
insert into oc_items values (1, 1, 'a');
insert into oc_items values (2, 2, '50% off');
insert into oc_items values (3, 4, null);
insert into languages values ('en', 'English');
insert into languages values ('de', 'Deutsch')
"""


KEYS = {"orders": "order_id", "items": "item_id", "languages": "code"}


def source(text: str = YAML) -> Source:
    return Source.model_validate(yaml.safe_load(text))


@dataclass
class Database:
    """A database of one of the two kinds, and what a test needs to know of it."""

    kind: str
    dsn: str
    writer: object
    locks: str

    def run(self, text: str) -> None:
        with self.writer.cursor() as cursor:
            for statement in text.split(";\n"):
                cursor.execute(statement)

    def query(self, text: str) -> list[tuple]:
        with self.writer.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())


@pytest.fixture(params=["mariadb", "postgres"])
def database(request: pytest.FixtureRequest, warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Three tables with a few rows, read by ``source()``."""
    if request.param == "mariadb":
        server: MariaDB = request.getfixturevalue("mariadb")
        server.run(None, "drop database if exists tried", "create database tried")
        # Row locks, and tables that anybody holds.
        locks = (
            "select (select count(*) from information_schema.innodb_locks) "
            "+ (select ifnull(sum(trx_tables_locked + trx_rows_locked), 0) from information_schema.innodb_trx)"
        )
        found = Database("mariadb", server.dsn("tried"), server.connect("tried"), locks)
        found.run("set innodb_lock_wait_timeout = 1;\nset time_zone = '+02:00'")
    else:
        with connect(autocommit=True) as owner:
            owner.execute("drop database if exists tried with (force)")
            owner.execute("create database tried")
        dsn = owner_dsn().rsplit("/", 1)[0] + "/tried"
        # Readers of Postgres hold what stops nothing but a change of the table's shape.
        locks = "select count(*) from pg_locks where mode <> 'AccessShareLock' and locktype in ('relation', 'tuple')"
        writer = psycopg.connect(dsn, autocommit=True, options="-c lock_timeout=1s -c timezone=Europe/Berlin")
        found = Database("postgres", dsn, writer, locks)
    found.run(
        (TABLES + ";\n" + ROWS)
        if found.kind == "mariadb"
        else (TABLES + ";\n" + ROWS).replace("moment timestamp", "moment timestamptz").replace("datetime", "timestamp")
    )
    monkeypatch.setenv("EMPORIUM_SECRET_TRIED", found.dsn)
    yield found
    found.writer.close()


def rows(name: str, first: date, last: date | None = None, text: str = YAML) -> list[dict]:
    """What is read of an entity, by key and day."""
    found = next(one for one in extract(source(text), first, last or first) if one.entity == name).rows.to_pylist()
    return sorted(found, key=lambda row: (row[KEYS[name]], row["partition_on"]))


def keys(name: str, first: date, last: date | None = None) -> list[tuple]:
    return [(one[KEYS[name]], one["partition_on"]) for one in rows(name, first, last)]


def test_a_day_is_a_day_in_utc_whatever_clock_the_shop_has(database: Database) -> None:
    before, day = DAY - timedelta(days=1), rows("orders", DAY)
    assert keys("orders", before) == [("5", before)]
    assert [(one["order_id"], str(one["added_at"])[:19]) for one in day] == [
        ("1", "2024-03-31 00:30:00"), ("2", "2024-03-31 01:00:00"), ("3", "2024-03-31 23:59:59"), ("5", "None"),
    ]  # fmt: skip
    assert [one["order_id"] for one in rows("orders", NEXT) if one["added_at"]] == ["4"]
    assert keys("items", DAY, NEXT) == [("1", DAY), ("3", NEXT)]
    # A time that knows its zone is shown with it: half past three in the writer's zone, which is two hours ahead.
    moment = datetime.fromisoformat(day[0]["moment"])
    assert moment == datetime.fromisoformat("2024-03-31 01:30:00+00:00")
    assert day[0]["name"] == "Größe 😀"
    assert (day[0]["total"], day[0]["gone"]) == ("1.5000", None)


def test_a_row_that_was_changed_comes_again_on_that_day_and_stays_where_it_was(database: Database) -> None:
    changed_on = date(2024, 4, 2)
    assert ("2", changed_on) in keys("orders", changed_on)
    assert [one for one in keys("orders", DAY, changed_on) if one[0] == "2"] == [("2", DAY), ("2", changed_on)]
    assert ("2", DAY) in keys("orders", DAY)


def test_a_row_without_a_time_is_never_dropped_silently(database: Database, monkeypatch) -> None:
    assert ("5", DAY) in keys("orders", DAY)
    monkeypatch.setattr(connector_module, "CHUNK_ROWS", 1)
    with connector(source()) as shop:
        chunks = list(shop.chunks(DAY, NEXT))
        assert chunks == [(DAY, DAY), (NEXT, NEXT)]
        found = [
            next(one.rows.to_pylist() for one in extracts(shop, *chunk) if one.entity == "orders") for chunk in chunks
        ]
    # Over all chunks of a command it comes once, on the last day.
    assert [{one["order_id"] for one in piece} for piece in found] == [{"1", "2", "3"}, {"4", "5"}]


def test_all_is_read_of_one_moment_while_others_write_and_nobody_waits(database: Database) -> None:
    with connector(source()) as shop:
        reading = shop.read(DAY, NEXT)
        first = next(reading)
        assert first.entity == "orders"
        assert database.query(database.locks) == [(0,)]
        # All of this would wait, or fail after a second, if the reader held a lock.
        database.run(
            "update oc_orders set total = 99;\nupdate oc_items set name = 'written meanwhile';\n"
            "insert into oc_items values (9, 1, 'new');\ndelete from languages where code = 'de'"
        )
        seen = {batch.entity: batch.rows.to_pylist() for batch in reading}
        assert [one["name"] for one in seen["items"]] == ["a", None]
        assert [one["code"] for one in seen["languages"]] == ["de", "en"]
        # And so is what a later chunk of the same command reads.
        assert {one["total"] for one in next(iter(shop.read(DAY, NEXT))).rows.to_pylist()} >= {"1.5000"}
    assert [one["name"] for one in rows("items", DAY)] == ["written meanwhile", "written meanwhile", "new"]


def test_nothing_can_be_written_even_by_a_user_who_may(database: Database, mariadb, monkeypatch) -> None:
    if database.kind == "mariadb":
        monkeypatch.setenv("EMPORIUM_SECRET_TRIED", f"mysql+pymysql://root@127.0.0.1:{mariadb.port}/tried")
    with connector(source()) as shop:
        next(shop.read(DAY, DAY))
        with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only"), shop._engine().connect() as connection:
            connection.exec_driver_sql("insert into languages values ('fr', 'Francais')")
    assert database.query("select count(*) from languages") == [(2,)]


def test_a_column_that_is_not_there_is_named_and_an_optional_one_is_null(database: Database) -> None:
    database.run("alter table oc_orders drop column total")
    with pytest.raises(
        SourceError, match=r"tried\.orders: \S*oc_orders lacks the column total; it has: order_id, name"
    ):
        rows("orders", DAY)
    database.run("drop table languages")
    with pytest.raises(SourceError, match=r"tried\.languages cannot be read: there is no table languages"):
        rows("languages", DAY, text=YAML.replace("total: {", "total: {optional: true, "))
    lacking = YAML.replace("total: {", "total: {optional: true, ").replace(
        "snapshot: true}", "snapshot: true, optional: true}"
    )
    assert rows("languages", DAY, text=lacking) == []
    assert rows("orders", DAY, text=lacking)[0]["total"] is None


def test_a_new_column_is_seen_and_its_values_only_where_the_policy_lets_them_on(database: Database) -> None:
    database.run("alter table oc_orders add column gift varchar(9)")
    database.run("update oc_orders set gift = 'bow'")
    frozen = next(iter(extract(source(), DAY, DAY)))
    assert (frozen.unnamed, frozen.extra) == (("gift",), None)
    evolving = source(YAML.replace("ignore: [note]", "ignore: [note]\n    schema_policy: evolve"))
    found = next(iter(extract(evolving, DAY, DAY)))
    assert found.unnamed == ("gift",)
    assert found.extra.to_pydict() == {"gift": ["bow"] * 4}


def test_the_keys_are_all_that_are_there_now(database: Database) -> None:
    with connector(source()) as shop:
        assert shop.keys("orders").to_pydict() == {"order_id": ["1", "2", "3", "4", "5"]}
        assert shop.keys("items").to_pydict() == {"item_id": ["1", "3"]}


def test_what_a_shop_has_is_found_out_without_its_secrets(database: Database) -> None:
    database.run("create table people (id bigint primary key, email varchar(40), password varchar(20), born date)")
    database.run("insert into people values (1, 'ann@example.org', 'hunter2', '1990-01-01')")
    with connector(source()) as shop:
        found = shop.discover()
    assert set(found) == {"orders", "oc_items", "languages", "people"}
    people = {one.name: one for one in found["people"]}
    assert (people["id"].type, people["id"].is_key, people["id"].is_nullable) == ("bigint", True, False)
    assert (people["born"].type, people["born"].samples) == ("date", ("1990-01-01",))
    assert people["email"].samples == ("***@***",)
    assert people["password"].samples == ()
    assert {one.name: one.type for one in found["orders"]}["total"] == "numeric(18,4)"
    assert {one.name: one.type for one in found["orders"]}["added_at"] == "timestamptz"


def test_a_wrong_password_is_not_repeated(database: Database, monkeypatch, caplog, capfd) -> None:
    right = PASSWORD if database.kind == "mariadb" else sa.make_url(database.dsn).password
    wrong = sa.make_url(database.dsn).set(password="hunter2:!").render_as_string(hide_password=False)
    monkeypatch.setenv("EMPORIUM_SECRET_TRIED", wrong)
    with pytest.raises(SourceError, match=r"The database of tried does not answer: .*(denied|authentication)") as error:
        rows("orders", DAY)
    monkeypatch.setenv("EMPORIUM_SECRET_TRIED", database.dsn)
    with pytest.raises(SourceError, match=r"tried\.items cannot be read") as broken:
        rows("items", DAY, text=YAML.replace("i.name not like", "i.nme not like"))
    heard = f"{error.value!r} {broken.value!r} {caplog.text} {capfd.readouterr()}"
    assert "hunter2" not in heard
    assert right not in heard


@pytest.fixture
def lake(warehouse, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """``source()`` with three late days, ready to be landed."""
    monkeypatch.setenv("EMPORIUM_LAKE", str(tmp_path / "lake"))
    settings.cache_clear()
    tried = source(YAML.replace("entities:", "late_days: 3\nentities:", 1))
    with monkeypatch.context() as patch:
        patch.setattr("include.ingest.tables.sources", lambda: [tried])
        prepare()
    yield tried
    settings.cache_clear()
    with connect() as conn:
        conn.execute("drop schema if exists raw_tried cascade")


def test_a_row_that_came_late_is_landed_once_with_the_next_day(database: Database, lake: Source) -> None:
    orders = lake.entities["orders"]

    def landed(day: date) -> list[tuple]:
        rows = bronze.read("tried", "orders", orders, day, day).to_pylist()
        return sorted((row["order_id"], row["added_at"], row["known_at"], row["_file"][-6:]) for row in rows)

    def take(first: date, last: date) -> None:
        list(landing.land(lake, first, last))

    after = NEXT + timedelta(days=1)
    take(DAY, DAY)
    before = landed(DAY)
    assert landed(DAY)
    # Days that were never landed are none of its business, and what is changed in place did not come late.
    database.run(
        "insert into oc_orders values (6, 'committed late', 6, '2024-03-31 13:00:00', null, null, 'x');\n"
        "insert into oc_orders values (7, 'of a day that is not here', 7, '2024-03-29 13:00:00', null, null, 'x');\n"
        "insert into oc_orders values (8, 'changed', 8, '2024-03-29 13:00:00', '2024-03-31 13:00:00', null, 'x');\n"
        "update oc_orders set name = 'in place' where order_id = 1"
    )
    take(NEXT, NEXT)
    late = [row for row in landed(NEXT) if row[3] == ", late"]
    assert late == [
        ("6", "2024-03-31 11:00:00.000000Z", start_of(NEXT), ", late"),
        ("8", "2024-03-29 12:00:00.000000Z", start_of(NEXT), ", late"),
    ]
    assert landed(DAY) == before
    then = landed(NEXT)
    take(after, after)
    assert not [row for row in landed(after) if row[3] == ", late"]
    # A rerun gives the same, also when another row came meanwhile that a later day took.
    database.run("insert into oc_orders values (9, 'later still', 9, '2024-03-31 13:00:00', null, null, 'x')")
    take(after, after)
    assert [row[0] for row in landed(after) if row[3] == ", late"] == ["9"]
    take(NEXT, NEXT)
    assert landed(NEXT) == then
    take(after, after)
    assert [row[0] for row in landed(after) if row[3] == ", late"] == ["9"]


def test_a_snapshot_is_not_landed_anew_once_a_later_day_is(
    database: Database, warehouse, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("EMPORIUM_LAKE", str(tmp_path / "lake"))
    settings.cache_clear()
    tried = source()
    try:
        with monkeypatch.context() as patch:
            patch.setattr("include.ingest.tables.sources", lambda: [tried])
            prepare()

        def landed() -> dict:
            with connect() as conn:
                counts = conn.execute(
                    "select partition_on, n_rows, batch from raw_tried._landed where entity = 'languages' order by 1"
                ).fetchall()
            found = bronze.read("tried", "languages", tried.entities["languages"], DAY, NEXT + timedelta(days=9))
            return {"counts": counts, "rows": [(row["partition_on"], row["name"]) for row in found.to_pylist()]}

        list(landing.land(tried, DAY, DAY))
        database.run("update languages set name = 'German' where code = 'de'")
        list(landing.land(tried, NEXT, NEXT))
        before = landed()
        assert before["rows"] == [(DAY, "Deutsch"), (DAY, "English"), (NEXT, "German"), (NEXT, "English")]
        database.run("update languages set name = 'Allemand' where code = 'de'")
        # An old day keeps what it had, alone or within a range; the newest is what is there now.
        list(landing.land(tried, DAY, DAY))
        assert landed() == before
        list(landing.land(tried, DAY - timedelta(days=1), NEXT))
        assert landed()["rows"] == before["rows"]
        list(landing.land(tried, NEXT, NEXT))
        assert [name for day, name in landed()["rows"] if day == NEXT] == ["Allemand", "English"]
        # A range that reaches beyond the newest day brings what is there now on the first day after it.
        before = landed()["rows"]
        database.run("update languages set name = 'Tedesco' where code = 'de'")
        list(landing.land(tried, DAY, NEXT + timedelta(days=3)))
        after = NEXT + timedelta(days=1)
        assert landed()["rows"] == [*before, (after, "Tedesco"), (after, "English")]
    finally:
        settings.cache_clear()
        with connect() as conn:
            conn.execute("drop schema if exists raw_tried cascade")


def test_a_zero_date_is_no_date_and_fails_nobody(mariadb: MariaDB, warehouse, monkeypatch) -> None:
    mariadb.run(None, "drop database if exists tried", "create database tried")
    strict = TABLES.replace("added_at datetime", "added_at datetime not null")
    mariadb.run("tried", strict, ROWS.replace("5, null, null, null", "5, '0000-00-00 00:00:00', '0000-00-00', null"))
    monkeypatch.setenv("EMPORIUM_SECRET_TRIED", mariadb.dsn("tried"))
    mariadb.run(None, "set global sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ONLY_FULL_GROUP_BY'")
    try:
        undated = next(one for one in rows("orders", DAY) if one["order_id"] == "5")
        assert (undated["added_at"], undated["changed_at"]) == (None, None)
        with connector(source()) as shop:
            assert list(shop.chunks(DAY, NEXT)) == [(DAY, NEXT)]
    finally:
        mariadb.run(None, "set global sql_mode = ''")


def test_a_table_that_knows_no_snapshot_is_copied_by_the_server_so_that_its_lock_is_short(
    mariadb: MariaDB, warehouse, monkeypatch
) -> None:
    mariadb.run(None, "drop database if exists tried", "create database tried")
    mariadb.run("tried", TABLES, "alter table oc_items engine = MyISAM")
    mariadb.run(
        "tried",
        "insert into oc_orders (order_id, added_at) select seq, '2024-03-31 12:00:00' from seq_1_to_60000",
    )
    mariadb.run("tried", "insert into oc_items select seq, seq, repeat('y', 40) from seq_1_to_60000")
    monkeypatch.setenv("EMPORIUM_SECRET_TRIED", mariadb.dsn("tried"))
    with connector(source()) as shop:
        query = shop._select("items", shop._shape("items"), ["item_id"], None)
        assert "SQL_BUFFER_RESULT" in str(query.compile(shop._engine()))
        plain = shop._select("orders", shop._shape("orders"), ["order_id"], None)
        assert "SQL_BUFFER_RESULT" not in str(plain.compile(shop._engine()))
        # The reader has fetched a single row of many.
        with shop._engine().connect() as connection:
            result = connection.execution_options(yield_per=1).execute(query)
            assert result.fetchone()
            with mariadb.connect("tried", read_timeout=5) as writer, writer.cursor() as cursor:
                cursor.execute("set lock_wait_timeout = 2")
                cursor.execute("update oc_items set name = 'z' where item_id = 59999")
            result.close()


def test_a_refused_writer_would_be_noticed(mariadb: MariaDB) -> None:
    """The lock counts above can be other than 0."""
    mariadb.run(None, "drop database if exists tried", "create database tried")
    mariadb.run("tried", TABLES, ROWS)
    with mariadb.connect("tried") as holder, holder.cursor() as cursor:
        cursor.execute("start transaction")
        cursor.execute("select * from oc_orders where order_id = 1 for update")
        assert mariadb.query("tried", "select sum(trx_rows_locked) > 0 from information_schema.innodb_trx") == [(1,)]
        with mariadb.connect("tried") as writer, writer.cursor() as other:
            other.execute("set innodb_lock_wait_timeout = 1")
            with pytest.raises(pymysql.err.OperationalError, match="Lock wait timeout"):
                other.execute("update oc_orders set total = 1 where order_id = 1")
