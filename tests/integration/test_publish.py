"""Write, audit, publish: fencing, swaps, rollback, and marts that BI never loses."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import psycopg
import pyarrow as pa
import pytest

from include import ops
from include.settings import ROOT
from include.warehouse import marts, publish
from include.warehouse.core import NotGreenError
from include.warehouse.engine import connect
from include.warehouse.export import export
from tests.integration.conftest import drop_models, mark_build

pytestmark = pytest.mark.integration
DAY = date(2025, 3, 1)


def scores(as_of: date, n: int = 20, probability: float = 0.5) -> pa.Table:
    return pa.table(
        {
            "as_of": [as_of] * n,
            "customer_id": [f"c{i}" for i in range(n)],
            "churn_probability": [probability] * n,
            "decile": pa.array([1 + i % 10 for i in range(n)], pa.int16()),
            "reason_1": ["no order for 74 days"] * n,
            "reason_2": pa.array([None] * n, pa.string()),
            "reason_3": [""] * n,
            "model_name": ["m"] * n,
            "model_version": ["1"] * n,
        }
    )


def write(as_of: date, probability: float = 0.5, audit: bool = True) -> int:
    token = ops.begin("churn_score", as_of)
    publish.stage("churn_score", as_of, token, scores(as_of, probability=probability))
    if audit:
        publish.mark_audited(token, ok=True)
    return token


def live(as_of: date) -> list[tuple]:
    with connect("bi_reader") as conn:
        return conn.execute("select * from bi.churn_score where as_of = %s order by customer_id", (as_of,)).fetchall()


def test_audited_rows_become_visible_and_a_same_rerun_changes_nothing(warehouse):
    first = publish.publish("predictions.churn_score", DAY, write(DAY))
    before = live(DAY)
    again = publish.publish("churn_score", DAY, write(DAY))
    assert (first.n_rows, first.is_changed, again.is_changed) == (20, True, False)
    assert again.checksum == first.checksum
    assert live(DAY) == before
    assert before[0][4:7] == ("no order for 74 days", None, "")


def test_unaudited_or_rejected_rows_stay_invisible(warehouse):
    day = DAY + timedelta(days=1)
    with pytest.raises(publish.PublishError, match="not audited"):
        publish.publish("churn_score", day, write(day, audit=False))
    token = write(day, audit=False)
    publish.mark_audited(token, ok=False, detail="p")
    with pytest.raises(publish.PublishError, match="rejected"):
        publish.publish("churn_score", day, token)
    assert live(day) == []


def test_stale_writer_is_refused_and_the_newer_rows_stay(warehouse):
    day = DAY + timedelta(days=2)
    slow = write(day, probability=0.1)
    publish.publish("churn_score", day, write(day, probability=0.9))
    with pytest.raises(publish.StaleWriterError, match="newer"):
        publish.publish("churn_score", day, slow)
    assert {row[2] for row in live(day)} == {0.9}
    with connect("publisher") as conn:
        state = conn.execute("select state from ops.run_ledger where token = %s", (slow,)).fetchone()
        assert state == ("refused",)


def test_rollback_takes_newer_days_back_and_a_rerun_brings_them_again(warehouse):
    # Later than what any other test publishes: a rollback takes every newer day back.
    first, second = date(2040, 1, 1), date(2040, 1, 2)
    for day in (first, second):
        publish.publish("churn_score", day, write(day))
    assert publish.rollback("predictions.churn_score", first) == [second]
    with connect("bi_reader") as conn:
        assert conn.execute("select distinct as_of from bi.churn_score_latest").fetchall() == [(first,)]
    with pytest.raises(publish.PublishError, match="nothing published as of"):
        publish.rollback("churn_score", second)
    publish.publish("churn_score", second, write(second))
    assert len(live(second)) == 20
    with connect() as conn:
        leftovers = conn.execute(
            "select tablename from pg_tables where schemaname = 'predictions_stage' and tablename like any(%s)",
            ([f"churn_score__{day:%Y%m%d}_t%" for day in (first, second)],),
        ).fetchall()
    assert leftovers == [], "what was published leaves nothing beside"


def test_wrong_columns_are_named(warehouse):
    token = ops.begin("churn_score", DAY)
    with pytest.raises(publish.PublishError, match="has the columns"):
        publish.stage("churn_score", DAY, token, scores(DAY).drop_columns(["reason_3"]))


@pytest.fixture(scope="module", autouse=True)
def no_models_of_other_tests(warehouse):
    drop_models()


@pytest.fixture
def mart(warehouse):
    with connect("transformer", autocommit=True) as conn:
        conn.execute("drop table if exists core.dim_probe")
        conn.execute("create table core.dim_probe (id int not null, name text, amount numeric(18,4))")
        conn.execute("create unique index on core.dim_probe (id)")
        conn.execute("insert into core.dim_probe select i, 'n' || i, i from generate_series(1, 100) i")
        yield conn
        conn.execute("drop table if exists core.dim_probe")
    with connect() as conn:
        conn.execute("drop view if exists bi.dim_probe")
        conn.execute("drop table if exists published.dim_probe")


def bi_rows() -> list[tuple]:
    with connect("bi_reader") as conn:
        return conn.execute("select * from bi.dim_probe order by id").fetchall()


def test_marts_merge_only_what_changed_and_outlive_a_dbt_rebuild(mart):
    assert marts.publish_core(DAY)[0].n_written == 100
    mart.execute("update core.dim_probe set name = null where id = 7")
    mart.execute("delete from core.dim_probe where id = 8")
    second = marts.publish_core(DAY)[0]
    assert (second.n_written, second.n_deleted, second.n_rows) == (1, 1, 99)
    mart.execute("drop table core.dim_probe cascade")
    assert len(bi_rows()) == 99
    mart.execute("create table core.dim_probe (id int not null, name text, amount numeric(18,4), extra text)")
    mart.execute("create unique index on core.dim_probe (id)")
    mart.execute("insert into core.dim_probe select i, 'n' || i, i, 'e' from generate_series(1, 100) i")
    marts.publish_core(DAY)
    assert bi_rows()[0][-1] == "e"


def test_core_of_a_build_that_is_not_green_is_neither_published_nor_exported(mart):
    marts.publish_core(DAY)
    mart.execute("update core.dim_probe set name = 'bad'")
    mark_build(is_green=False)
    try:
        with pytest.raises(NotGreenError, match="not green"):
            marts.publish_core(DAY)
        with pytest.raises(NotGreenError, match="not green"):
            export()
    finally:
        mark_build(is_green=True)
    assert {row[1] for row in bi_rows()} != {"bad"}


def test_a_mart_that_would_lose_most_rows_is_refused(mart):
    marts.publish_core(DAY)
    mart.execute("delete from core.dim_probe where id > 10")
    with pytest.raises(publish.PublishError, match="would lose 90 of its 100"):
        marts.publish_core(DAY)
    assert len(bi_rows()) == 100


@pytest.mark.parametrize("change", ["drop column name", "alter column amount type numeric(10,2)"])
def test_a_breaking_schema_change_is_refused(mart, change):
    marts.publish_core(DAY)
    mart.execute(f"alter table core.dim_probe {change}")
    with pytest.raises(publish.PublishError, match="BI reads"):
        marts.publish_core(DAY)
    assert len(bi_rows()) == 100


def test_dbt_user_cannot_touch_what_bi_reads(mart):
    marts.publish_core(DAY)
    for statement in (
        "drop view bi.dim_probe",
        "drop table published.dim_probe cascade",
        "delete from published.dim_probe",
        "drop schema bi cascade",
        "drop table predictions.churn_score cascade",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            mart.execute(statement)


class Nights:
    """A fact and its daily sums in ``core``, changed as dbt does it: in place with a note, or made anew."""

    COLUMNS = "order_id text not null, marketplace text not null, ordered_on date, amount numeric(18,4), status text"
    SUMS = "select marketplace, ordered_on as date_on, count(*) as n_orders, sum(amount)::numeric(18,4) as amount"

    def __init__(self, conn: psycopg.Connection, seed: int = 0) -> None:
        self.conn, self.random = conn, random.Random(seed)
        self.conn.execute("drop table if exists core.fact_probe, core.rpt_probe_day")
        self.conn.execute(f"create table core.fact_probe ({self.COLUMNS})")
        self.conn.execute("create unique index on core.fact_probe (order_id, marketplace)")
        self.conn.execute("create index on core.fact_probe (marketplace, ordered_on)")
        self._sum_up()

    def _sum_up(self) -> None:
        self.conn.execute("drop table if exists core.rpt_probe_day")
        self.conn.execute(f"create table core.rpt_probe_day as {self.SUMS} from core.fact_probe group by 1, 2")
        self.conn.execute("create unique index on core.rpt_probe_day (date_on, marketplace)")

    def in_place(self, rows: list[tuple], gone: Sequence[tuple] = (), is_noted: bool = True) -> None:
        """Replace the orders of ``rows`` (order, marketplace, day, amount, status), remove ``gone`` (order,
        marketplace), and build the touched days anew.
        """
        keys = [{"order_id": row[0], "marketplace": row[1]} for row in (*rows, *gone)]
        with self.conn.transaction():
            self.conn.execute(
                "create temporary table touched on commit drop as "
                "select order_id, marketplace from jsonb_to_recordset(%s) as k (order_id text, marketplace text)",
                (json.dumps(keys),),
            )
            of_touched = "select marketplace, ordered_on from core.fact_probe where (order_id, marketplace) in "
            of_touched += "(select * from touched)"
            self.conn.execute(f"create temporary table days on commit drop as {of_touched}")
            self.conn.execute("delete from core.fact_probe where (order_id, marketplace) in (select * from touched)")
            with self.conn.cursor() as cursor:
                cursor.executemany(
                    "insert into core.fact_probe (order_id, marketplace, ordered_on, amount, status) "
                    "values (%s, %s, %s, %s, %s)",
                    rows,
                )
            self.conn.execute(f"insert into days {of_touched}")
            self.conn.execute("delete from core.rpt_probe_day where (marketplace, date_on) in (select * from days)")
            self.conn.execute(
                f"insert into core.rpt_probe_day {self.SUMS} from core.fact_probe "
                "where (marketplace, ordered_on) in (select * from days) group by 1, 2"
            )
            if is_noted:
                self.conn.execute(
                    """
                    insert into ops.unpublished select 'fact_probe', to_jsonb(touched) from touched
                    union all select 'fact_probe', null union all select 'rpt_probe_day', null union all
                    select 'rpt_probe_day', jsonb_build_object('marketplace', marketplace, 'date_on', ordered_on)
                    from days
                    """
                )

    def rebuild(self, extra: str = "") -> None:
        """All of it in new tables; ``extra`` is a column more, in their middle."""
        columns = [name for (name,) in self.conn.execute(
            "select column_name from information_schema.columns "
            "where table_schema = 'core' and table_name = 'fact_probe' order by ordinal_position"
        )]  # fmt: skip
        if extra and extra not in columns:
            columns.insert(1, f"order_id || '!' as {extra}")
        self.conn.execute(f"create table core.built as select {', '.join(columns)} from core.fact_probe")
        self.conn.execute("drop table core.fact_probe")
        self.conn.execute("alter table core.built rename to fact_probe")
        self.conn.execute("create unique index on core.fact_probe (order_id, marketplace)")
        self._sum_up()

    def some_rows(self, n: int) -> list[tuple]:
        """Random orders of a few keys and days, so that they meet again."""
        keys = {(f"o{self.random.randrange(40)}", self.random.choice("AB")) for _ in range(n)}
        return [
            (*key, date(2025, 1, self.random.randint(1, 9)), self.random.randint(0, 3), self.random.choice(["x", None]))
            for key in sorted(keys)
        ]


@pytest.fixture
def core(warehouse) -> Iterator[psycopg.Connection]:
    with connect("transformer", autocommit=True) as conn:
        yield conn
        conn.execute("drop table if exists core.fact_probe, core.rpt_probe_day")
    forget_marts("fact_probe", "rpt_probe_day")


def forget_marts(*names: str) -> None:
    """As if they had never been published."""
    with connect() as conn:
        for name in names:
            conn.execute(f"drop view if exists bi.{name}")
            conn.execute(f"drop table if exists published.{name}")
        conn.execute("delete from ops.published_mart where mart = any (%s)", (list(names),))
        conn.execute("delete from ops.unpublished where mart = any (%s)", (list(names),))
        conn.execute("delete from ops.bi_index where mart = any (%s)", (list(names),))


def check_published(merged: list[marts.Merged]) -> None:
    """What was merged is what core holds, and the checksum that was kept up is that of all rows."""
    with connect() as conn:
        for one in merged:
            columns = list(marts._types(conn, "published", one.table))
            wanted = publish.checksum(conn, "core", one.table, columns)
            assert publish.checksum(conn, "published", one.table, columns) == wanted, one
            assert (one.n_rows, one.checksum) == wanted, one


@pytest.mark.parametrize("seed", range(20))
def test_what_is_merged_by_notes_is_what_a_full_comparison_gives(core, seed):
    nights = Nights(core, seed)
    forget_marts("fact_probe", "rpt_probe_day")
    nights.in_place(nights.some_rows(30))
    check_published(marts.publish_core(DAY))
    for number in range(3):
        for _ in range(nights.random.randint(0, 2)):
            rows = nights.some_rows(6)
            n_gone = nights.random.randint(0, len(rows) // 2)
            nights.in_place(rows[n_gone:], [row[:2] for row in rows[:n_gone]])
        turn = nights.random.randrange(4)
        if turn == 0:
            nights.rebuild(nights.random.choice(["", f"extra_{number}"]))
        elif turn == 1:
            core.execute(f"alter table core.rpt_probe_day add column more_{number} text default 'm'")
            core.execute("alter table core.rpt_probe_day alter column n_orders set not null")
            nights.SUMS += f", 'm' as more_{number}"
        check_published(marts.publish_core(DAY, allow_shrink=True))
    whole = marts.publish_core(DAY, full=True)
    check_published(whole)
    assert [(one.n_written, one.n_deleted) for one in whole] == [(0, 0), (0, 0)]


def test_only_noted_rows_are_compared_and_only_what_differs_is_written(core):
    nights = Nights(core)
    day = date(2025, 1, 1)
    nights.in_place([(f"o{i}", "A", day + timedelta(days=i % 5), i, "x") for i in range(50)])
    marts.publish_core(DAY)
    # One changes its day, one goes, one comes, one is touched and stays as it is.
    nights.in_place([("o1", "A", day + timedelta(days=9), 1, "x"), ("o3", "A", day + timedelta(days=3), 3, "x"),
                     ("o99", "A", day, 9, "x")], gone=[("o2", "A")])  # fmt: skip
    fact, days = marts.publish_core(DAY)
    assert (fact.is_whole, fact.n_written, fact.n_deleted, fact.n_rows) == (False, 2, 1, 50)
    assert (days.is_whole, days.n_written, days.n_deleted) == (False, 4, 0)
    check_published([fact, days])
    with connect("publisher") as conn:
        left = "select count(*) from ops.unpublished where mart = any (%s)"
        assert conn.execute(left, (["fact_probe", "rpt_probe_day"],)).fetchone() == (0,)


def test_a_change_that_nobody_noted_is_found_all_the_same(core):
    nights = Nights(core)
    nights.in_place(nights.some_rows(30))
    marts.publish_core(DAY)
    nights.in_place([("o1", "A", DAY, 7, "new")], is_noted=False)
    merged = marts.publish_core(DAY)
    assert [one.is_whole for one in merged] == [True, True]
    check_published(merged)


def test_full_repairs_what_was_broken_behind_the_publishers_back(core):
    nights = Nights(core)
    nights.in_place(nights.some_rows(30))
    marts.publish_core(DAY)
    with connect("publisher") as conn:
        conn.execute("update published.fact_probe set amount = 1000 where order_id = 'o1'")
        conn.execute("delete from published.rpt_probe_day where marketplace = 'A'")
    nights.in_place([("o1", "B", DAY, 7, "new")])
    marts.publish_core(DAY)
    check_published(marts.publish_core(DAY, full=True))


def test_indexes_of_the_model_come_and_go_in_what_bi_reads(core):
    def columns() -> list[str]:
        with connect() as conn:
            return list(marts._indexes(conn, "published", "fact_probe"))

    nights = Nights(core)
    marts.publish_core(DAY)
    assert columns() == ["btree (marketplace, ordered_on)"]
    nights.rebuild()
    core.execute("create index on core.fact_probe (marketplace, amount desc)")
    marts.publish_core(DAY)
    assert columns() == ["btree (marketplace, amount DESC)"]


def test_indexes_that_only_bi_needs_are_made_where_bi_reads(core):
    def columns(schema: str) -> set[str]:
        with connect() as conn:
            return set(marts._indexes(conn, schema, "fact_probe"))

    core.execute("insert into ops.bi_index values ('fact_probe', array['status', 'ordered_on'])")
    core.execute("insert into ops.bi_index values ('rpt_probe_day', array['date_on'])")
    Nights(core)
    marts.publish_core(DAY)
    of_core = columns("core")
    assert "btree (status, ordered_on)" not in of_core
    assert columns("published") == of_core | {"btree (status, ordered_on)"}

    core.execute("delete from ops.bi_index where mart = 'fact_probe'")
    core.execute("insert into ops.bi_index values ('fact_probe', array['amount'])")
    marts.publish_core(DAY)
    assert columns("published") == of_core | {"btree (amount)"}


def test_a_mart_of_another_grain_is_refused(core):
    nights = Nights(core)
    marts.publish_core(DAY)
    nights.rebuild()
    core.execute("drop index core.fact_probe_order_id_marketplace_idx")
    core.execute("create unique index on core.fact_probe (order_id)")
    with pytest.raises(publish.PublishError, match=r"has the key \(order_id\), what BI reads"):
        marts.publish_core(DAY)


def test_a_killed_publisher_leaves_the_old_night_and_a_rerun_heals(core):
    def seen() -> list[tuple]:
        with connect("bi_reader") as conn:
            return conn.execute(
                "select (select sum(amount) from bi.fact_probe), (select sum(amount) from bi.rpt_probe_day), "
                "(select count(*) from bi.fact_probe)"
            ).fetchall()

    def backends(condition: str) -> int:
        with connect() as conn:
            row = conn.execute(
                "select count(*) from pg_stat_activity where application_name = 'emporium-publisher' and " + condition
            ).fetchone()
        return row[0] if row else 0

    def wait_until(condition: str, n: int) -> None:
        end = time.monotonic() + 30
        while backends(condition) != n:
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    nights = Nights(core)
    nights.in_place(nights.some_rows(30))
    marts.publish_core(DAY)
    before = seen()
    nights.in_place([(f"new{i}", "A", DAY, 100, "x") for i in range(5)])
    # A lock on the second mart stops it when the first is merged.
    with connect("publisher", application_name="holder") as holder:
        holder.execute("lock table published.rpt_probe_day in share mode")
        process = subprocess.Popen(
            [sys.executable, "-m", "include.warehouse.marts", "--as-of", str(DAY)], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        try:
            wait_until("wait_event_type = 'Lock'", 1)
            assert seen() == before
        finally:
            process.kill()
            process.wait()
    wait_until("true", 0)
    assert seen() == before
    check_published(marts.publish_core(DAY))
    assert seen() == [(before[0][0] + 500, before[0][1] + 500, before[0][2] + 5)]


@pytest.mark.parametrize("schema", ["published", "predictions", "core", "ops", "quarantine", "predictions_stage"])
def test_bi_reader_sees_bi_only(warehouse, schema):
    with connect() as owner:
        table = owner.execute("select tablename from pg_tables where schemaname = %s limit 1", (schema,)).fetchone()
    name = table[0] if table else "nothing"
    with connect("bi_reader") as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(f"select * from {schema}.{name}")
