"""Write, audit, publish: fencing, swaps, rollback, and marts that BI never loses."""

from datetime import date, timedelta

import psycopg
import pyarrow as pa
import pytest

from include import ops
from include.warehouse import marts, publish
from include.warehouse.core import NotGreenError
from include.warehouse.engine import connect
from include.warehouse.export import export
from tests.integration.conftest import mark_build

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


@pytest.mark.parametrize("schema", ["published", "predictions", "core", "ops", "quarantine", "predictions_stage"])
def test_bi_reader_sees_bi_only(warehouse, schema):
    with connect() as owner:
        table = owner.execute("select tablename from pg_tables where schemaname = %s limit 1", (schema,)).fetchone()
    name = table[0] if table else "nothing"
    with connect("bi_reader") as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(f"select * from {schema}.{name}")
