"""The analyst's loop and what a night keeps of its tests, with a project of three models in place of the real one."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import psycopg
import pytest

from include import analyst, dbt
from include.monitor import check_night
from include.settings import settings
from include.warehouse.engine import connect
from tests.integration.test_incremental import until

pytestmark = pytest.mark.integration

DAY, NEXT = date(2019, 3, 1), date(2019, 3, 2)
SCHEMA = "dev_probe"
MODELS = {
    "probe_numbers": "{{ config(materialized='table') }} select n, n * 2 as twice from generate_series(1, 3) as t (n)",
    "probe_sums": "{{ config(materialized='table') }} select sum(twice) as total from {{ ref('probe_numbers') }}",
    "probe_seen": "{{ config(materialized='view') }} select n from {{ ref('probe_numbers') }}",
    # Ten orders on as many days, and a model that is built by touched keys.
    "int_orders__current": "{{ config(schema='intermediate', materialized='table') }} "
    "select 'm' as marketplace, n::text as order_id, '2019-03-01'::date - n as ordered_on "
    "from generate_series(0, 9) as t (n)",
    "int_touched__order_keys": "select marketplace, order_id, true as is_changed, null::integer as days_back "
    "from {{ ref('int_orders__current') }} where false",
    "probe_orders": "{{ config(materialized='incremental', touched='orders') }} "
    "select marketplace, order_id, 1 as n_orders from {{ ref('int_orders__current') }} "
    "where {{ where_touched('orders') }}",
}
TESTS = """
version: 2
models:
  - name: probe_orders
    description: Orders.
    data_tests:
      - unique_combination: {name: orders_differ, arguments: {columns: [marketplace, order_id]}}
      - reconciles:
          name: orders_are_complete
          arguments: {to: ref('int_orders__current'), by: [marketplace], sums: {n_orders: 1}}
  - name: probe_numbers
    description: Numbers.
    data_tests:
      - unique_combination: {name: numbers_differ, arguments: {columns: [n]}}
    columns:
      - name: twice
        description: Twice the number.
        data_tests:
          - accepted_values:
              name: twice_is_small
              arguments: {values: [2, 4, 6], quote: false}
              config: {severity: warn, meta: {severity: warning}}
"""


@pytest.fixture(scope="module")
def project(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the project; a night as of ``DAY`` was green."""
    folder = tmp_path_factory.mktemp("analyst") / "project"
    shutil.copytree(dbt.PROJECT / "macros", folder / "macros")
    for name in ("profiles.yml", "dbt_project.yml"):
        shutil.copy(dbt.PROJECT / name, folder)
    (folder / "models").mkdir()
    for name, text in MODELS.items():
        (folder / "models" / f"{name}.sql").write_text(text)
    (folder / "models" / "models.yml").write_text(TESTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dbt, "PROJECT", folder)
        patch.setenv("EMPORIUM_DBT_SCHEMA", SCHEMA)
        settings.cache_clear()
        assert dbt.run("build", as_of=DAY) == 0
        yield folder
        analyst.clean()
    settings.cache_clear()
    shutil.rmtree(dbt.production_state())
    with connect("transformer") as conn:
        conn.execute("drop table core.probe_numbers, core.probe_sums, core.probe_orders cascade")
        conn.execute("drop table intermediate.int_orders__current cascade")
        conn.execute("delete from ops.quality_result where gate = 'warehouse' and as_of in (%s, %s)", (DAY, NEXT))


@pytest.fixture
def change(project: Path) -> Iterator[Path]:
    """The file of ``probe_numbers``, as it was afterwards."""
    path = project / "models" / "probe_numbers.sql"
    yield path
    path.write_text(MODELS["probe_numbers"])


def rows(query: str) -> list[tuple]:
    with connect() as conn:
        return conn.execute(query).fetchall()  # type: ignore[arg-type]


def relations() -> list[tuple]:
    """What is in the analyst's schema, with its kind: r is a table, v a view."""
    return rows(f"select relname, relkind from pg_class where relnamespace = '{SCHEMA}'::regnamespace order by 1")


def test_what_changed_and_what_hangs_on_it_is_built_beside_production(
    change: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change.write_text(MODELS["probe_numbers"].replace("3", "2"))
    before = rows("select oid from pg_class where relname like 'probe%' and relnamespace = 'core'::regnamespace")
    assert analyst.main([]) == 0
    assert rows(f"select total from {SCHEMA}.probe_sums") == [(6,)]
    assert rows("select total from core.probe_sums") == [(12,)]
    assert (
        rows("select oid from pg_class where relname like 'probe%' and relnamespace = 'core'::regnamespace") == before
    )
    # A view here would hang on production, and go whenever production is rebuilt.
    assert relations() == [("probe_numbers", "r"), ("probe_seen", "r"), ("probe_sums", "r")]
    assert f"ok in {SCHEMA}, 3 models, 2 tests" in capsys.readouterr().out


def test_what_is_not_selected_is_productions_even_where_a_copy_lies_about(change: Path) -> None:
    change.write_text(MODELS["probe_numbers"].replace("3", "2"))
    assert analyst.main(["--select", "probe_numbers"]) == 0
    assert analyst.main(["--select", "probe_sums"]) == 0
    assert rows(f"select total from {SCHEMA}.probe_sums") == [(12,)]


def test_a_test_that_fails_for_the_analyst_keeps_its_rows_and_leaves_the_verdicts_of_the_night(
    change: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = rows("select * from ops.quality_result order by checked_at")
    change.write_text(f"{MODELS['probe_numbers']} union all select 1, 2")
    assert analyst.main([]) == 1
    assert f"rows: select * from {SCHEMA}.numbers_differ" in capsys.readouterr().err
    assert rows(f"select n, n_rows from {SCHEMA}.numbers_differ") == [(1, 2)]
    assert rows("select * from ops.quality_result order by checked_at") == verdicts
    change.write_text(MODELS["probe_numbers"])
    assert analyst.main(["--select", "probe_numbers"]) == 0
    assert "numbers_differ" not in {name for name, _ in relations()}


def test_a_sample_holds_the_newest_days_of_what_is_built_by_touched_keys(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = f"select count(*) from {SCHEMA}.probe_orders"
    assert analyst.main(["--select", "probe_orders", "--days", "3"]) == 0
    assert rows(count) == [(3,)]
    # It lacks most of what production has: only tests of the sample alone say anything of it.
    assert "1 model, 1 test in" in capsys.readouterr().out
    assert analyst.main(["--select", "probe_orders"]) == 0
    assert rows(count) == [(10,)]
    assert "1 model, 2 tests in" in capsys.readouterr().out


def test_where_nothing_changed_or_nothing_is_meant_it_says_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyst.main([]) == 1
    assert "nothing has changed since the newest green night" in capsys.readouterr().err
    assert analyst.main(["--select", "+probe_sum"]) == 1
    assert "Is it probe_sums or" in capsys.readouterr().err


@pytest.mark.parametrize(
    "statement",
    [
        "create table core.mine (id int)",
        "drop table core.probe_sums",
        "delete from core.probe_sums",
        "create table dbt_tests.mine (id int)",
        "create schema mine",
        "create table public.mine (id int)",
        "update ops.quality_result set is_passed = true",
        "delete from ops.touched_key",
    ],
)
def test_an_analyst_writes_nowhere_else(project: Path, statement: str) -> None:
    with connect(analyst.ROLE) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(statement)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["core", "dev_", "dev_x; drop schema core", "DEV_X", "published"])
def test_an_analyst_makes_only_schemas_of_analysts(project: Path, name: str) -> None:
    with connect(analyst.ROLE) as conn, pytest.raises(psycopg.errors.RaiseException, match="is called dev_<user>"):
        conn.execute("select ops.make_dev_schema(%s)", (name,))


@pytest.mark.parametrize("line", [["--select", "probe_seen"], ["--clean"]], ids=["build", "clean"])
def test_two_of_one_schema_take_turns_and_a_night_waits_for_neither(
    project: Path, line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor() as pool:
        with dbt.turn(analyst.ROLE, f"emporium.dbt.{SCHEMA}", SCHEMA), connect("transformer") as conn:
            second = pool.submit(analyst.main, line)
            until(lambda: second.done() or f"another dbt is building {SCHEMA}" in capsys.readouterr().out)
            assert not second.done()
            assert conn.execute("select pg_try_advisory_lock(hashtext('emporium.dbt'))").fetchone() == (True,)
        assert second.result() == 0


def test_a_critical_test_stops_what_hangs_on_it_and_a_warning_tells_the_monitor(
    change: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change.write_text(f"{MODELS['probe_numbers']} union all select 1, 8")
    with connect("transformer") as conn:
        conn.execute("create table dbt_tests.renamed_since (id int)")
    assert dbt.run("build", as_of=NEXT) == 1
    out = capsys.readouterr()
    assert "FAILED test numbers_differ" in out.err
    assert "rows: select * from dbt_tests.numbers_differ" in out.err
    assert "skipped model probe_sums" in out.out
    assert rows("select total from core.probe_sums") == [(12,)]
    assert rows("select n, n_rows from dbt_tests.numbers_differ") == [(1, 2)]
    assert rows("select value_field::int, n_records from dbt_tests.twice_is_small") == [(8, 1)]
    told = "select rule, severity, n_failed, observed ->> 'rows' from ops.quality_result where as_of = '2019-03-02' "
    assert rows(f"{told} and gate = 'warehouse' and target = 'probe_numbers' order by 1") == [
        ("numbers_differ", "critical", 1, "dbt_tests.numbers_differ"),
        ("twice_is_small", "warning", 1, "dbt_tests.twice_is_small"),
    ]
    found = {one.subject: one for one in check_night(NEXT)}["warehouse.probe_numbers.twice_is_small"]
    assert (found.is_ok, found.severity, found.detail) == (
        False,
        "warning",
        "rows: select * from dbt_tests.twice_is_small",
    )
    # Nothing hangs on a test that passes again, or that is no more.
    change.write_text(MODELS["probe_numbers"])
    assert dbt.run("build", as_of=NEXT) == 0
    # The code of the green night again, and tables of the other.
    assert "everything is built: the build before it" in capsys.readouterr().out
    assert rows("select tablename from pg_tables where schemaname = 'dbt_tests'") == []


def test_a_part_that_is_tested_alone_keeps_the_failures_of_the_others(project: Path) -> None:
    with connect("transformer") as conn:
        conn.execute("create table dbt_tests.of_another_test (id int)")
    assert dbt.run("test", ["--select", "numbers_differ"]) == 0
    assert rows("select tablename from pg_tables where schemaname = 'dbt_tests'") == [("of_another_test",)]


def test_descriptions_reach_the_warehouse(project: Path) -> None:
    told = "select obj_description(r), col_description(r, 2) from cast('core.probe_numbers' as regclass) as r"
    assert rows(told) == [("Numbers.", "Twice the number.")]


def test_cleaning_takes_the_schema_and_nothing_else(change: Path) -> None:
    change.write_text(MODELS["probe_numbers"].replace("3", "2"))
    assert analyst.main([]) == 0
    assert analyst.main(["--clean"]) == 0
    assert rows(f"select 1 from pg_namespace where nspname = '{SCHEMA}'") == []
    assert not analyst.folder().exists()
    assert (dbt.production_state() / "manifest.json").exists()
    assert rows("select total from core.probe_sums") == [(12,)]
