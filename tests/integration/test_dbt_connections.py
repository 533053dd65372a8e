"""What we make dbt do otherwise: its threads keep their connection, with nothing of a model left in it for the next,
and take what the longest chain waits for."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from include import analyst, dbt
from include.warehouse.engine import connect

pytestmark = pytest.mark.integration

SCHEMA = "dev_connections"
MODELS = {
    "leaves": "{{ config(materialized='table', pre_hook=[\"set statement_timeout = '17s'\", "
    '"create temporary table left_over as select 1 as n", "select pg_advisory_lock(4711)"]) }} '
    "select pg_backend_pid() as pid",
    "fails": "{{ config(pre_hook=\"set statement_timeout = '17s'\", materialized='table') }} select 1 / 0 as n",
    "finds": "-- depends_on: {{ ref('leaves') }}\n{{ config(materialized='table') }} "
    "select pg_backend_pid() as pid, current_setting('statement_timeout') as timeout, "
    "to_regclass('pg_temp.left_over')::text as left_over, "
    "(select count(*) from pg_locks where locktype = 'advisory' and objid = 4711) as n_locks",
    "a_ends": "{{ config(materialized='table', pre_hook='select pg_terminate_backend(pg_backend_pid())') }} "
    "select 1 as n",
    "b_goes_on": "{{ config(materialized='table') }} select 1 as n",
    "waits": "{{ config(materialized='table') }} select current_setting('synchronous_commit') as setting",
    "c_alone": "select 1 as n",
    "d_first": "select 1 as n",
    "e_second": "select * from {{ ref('d_first') }}",
    "f_third": "select * from {{ ref('e_second') }}",
}
CHAIN = ["d_first", "e_second", "f_third"]


@pytest.fixture
def project(tmp_path: Path, warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The arguments that build ``MODELS`` in one thread."""
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text(yaml.safe_dump({"name": "emporium", "profile": "emporium"}))
    (tmp_path / "profiles.yml").write_bytes((dbt.PROJECT / "profiles.yml").read_bytes())
    for name, text in MODELS.items():
        (tmp_path / "models" / f"{name}.sql").write_text(text)
    for name, value in dbt.environment(analyst.ROLE, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EMPORIUM_DBT_SCHEMA", SCHEMA)
    with connect(analyst.ROLE) as conn:
        conn.execute("select ops.make_dev_schema(%s)", (SCHEMA,))
    at = ["--project-dir", str(tmp_path), "--profiles-dir", str(tmp_path), "--target", "dev", "--threads", "1"]
    yield ["--log-level", "none", "--log-path", str(tmp_path), "run", *at]
    with connect(analyst.ROLE) as conn:
        conn.execute(f"drop schema {SCHEMA} cascade")
    os.environ.pop("EMPORIUM_DBT_SCHEMA", None)


def test_the_next_model_has_the_same_connection_as_new(project: list[str]) -> None:
    from dbt.cli.main import dbtRunner

    dbt.keep_connections()
    outcome = dbtRunner().invoke([*project, "--select", "leaves", "fails", "finds"])
    status = {one.node.name: str(one.status) for one in outcome.result.results}
    assert status == {"leaves": "success", "fails": "error", "finds": "success"}
    with connect(analyst.ROLE) as conn:
        left = conn.execute(f"select pid from {SCHEMA}.leaves").fetchone()
        found = conn.execute(f"select pid, timeout, left_over, n_locks from {SCHEMA}.finds").fetchone()
        assert left is not None
        assert found == (left[0], "0", None, 0)
        # When dbt is done its connections are gone.
        assert conn.execute("select from pg_stat_activity where pid = %s", left).fetchone() is None


def test_a_model_does_not_wait_for_the_disk_and_what_says_that_it_is_done_does(project: list[str]) -> None:
    from dbt.cli.main import dbtRunner

    assert dbtRunner().invoke([*project, "--select", "waits"]).success
    with connect(analyst.ROLE) as conn:
        assert conn.execute(f"select setting from {SCHEMA}.waits").fetchone() == ("off",)
        # Not of ours, though libpq reads the variable for these as well.
        assert conn.execute("show synchronous_commit").fetchone() == ("on",)


def test_a_connection_that_was_ended_is_replaced(project: list[str]) -> None:
    from dbt.cli.main import dbtRunner

    dbt.keep_connections()
    outcome = dbtRunner().invoke([*project, "--select", "a_ends", "b_goes_on"])
    assert [(one.node.name, str(one.status)) for one in outcome.result.results] == [
        ("a_ends", "error"),
        ("b_goes_on", "success"),
    ]


@pytest.mark.parametrize(
    ("seconds", "order"),
    [
        ({}, ["d_first", "e_second", "c_alone", "f_third"]),
        ({"c_alone": 9.0, "d_first": 1.0, "e_second": 1.0, "f_third": 1.0}, ["c_alone", *CHAIN]),
        ({"c_alone": 1.0, "d_first": 0.1, "e_second": 0.1, "f_third": 2.0}, [*CHAIN, "c_alone"]),
    ],
)
def test_what_the_longest_chain_waits_for_comes_first(
    project: list[str], tmp_path: Path, seconds: dict[str, float], order: list[str]
) -> None:
    from dbt.cli.main import dbtRunner

    if seconds:
        results = [{"unique_id": f"model.emporium.{name}", "execution_time": took} for name, took in seconds.items()]
        (tmp_path / "run_results.json").write_text(json.dumps({"results": results}))
    dbt.longest_chain_first(tmp_path)
    outcome = dbtRunner().invoke([*project, "--select", "c_alone", *CHAIN])
    assert [one.node.name for one in outcome.result.results] == order
