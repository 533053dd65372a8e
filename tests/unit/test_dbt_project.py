"""The dbt project's policies, read from its manifest: no database is needed to parse."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

from include import dbt
from include.ingest.sources import sources
from include.settings import ROOT, settings

OWNER = "Owner: data platform."
DAY = date(2025, 1, 1)


def parse(project: Path, target: Path, variables: dict) -> dict:
    """The manifest of a project folder, parsed with ``variables``."""
    from dbt.cli.main import dbtRunner

    folders = {"project-dir": project, "profiles-dir": project, "target-path": target, "log-path": target}
    options = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
    outcome = dbtRunner().invoke(
        ["--log-level", "none", "parse", "--no-partial-parse", *options, "--vars", json.dumps(variables)]
    )
    assert outcome.success, outcome.exception
    return json.loads((target / "manifest.json").read_text())


@contextmanager
def parsing_home(folder: Path) -> Iterator[Path]:
    """A home without a warehouse, in which dbt can parse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_HOME", str(folder))
        patch.delenv("EMPORIUM_DSN", raising=False)
        settings.cache_clear()
        for name, value in dbt.environment().items():
            patch.setenv(name, value)
        yield folder
    settings.cache_clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with parsing_home(tmp_path_factory.mktemp("home")) as folder:
        yield folder


@pytest.fixture(scope="module")
def manifest(home: Path) -> dict:
    return parse(dbt.PROJECT, home / "target", dbt.variables())


def models(manifest: dict, layer: str) -> dict[str, dict]:
    """Models of a layer by name; never empty, so that no policy passes on nothing."""
    found = {
        node["name"]: node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["fqn"][1] == layer
    }
    assert found
    return found


def test_every_mart_has_an_enforced_contract_and_says_its_grain_and_owner(manifest: dict) -> None:
    for name, model in models(manifest, "marts").items():
        assert model["contract"]["enforced"], name
        assert model["schema"] == "core", name
        first_line = model["description"].splitlines()[0]
        assert first_line.startswith("Grain: "), name
        assert OWNER in first_line, name


def test_every_column_of_a_mart_has_a_description_and_a_type_that_house_style_allows(manifest: dict) -> None:
    for name, model in models(manifest, "marts").items():
        for column in model["columns"].values():
            where, kind = f"{name}.{column['name']}", column["data_type"]
            assert column["description"], where
            if column["name"].endswith("_amount"):
                assert kind == "numeric(18,4)", where
            if column["name"].endswith("_at"):
                assert kind == "timestamp with time zone", where
            if column["name"].endswith("_on"):
                assert kind == "date", where
            if column["name"].startswith("is_"):
                assert kind == "boolean", where


def test_every_fact_and_dimension_has_a_unique_index_on_columns_that_are_never_null(manifest: dict) -> None:
    for name, model in models(manifest, "marts").items():
        keys = [index["columns"] for index in model["config"]["indexes"] if index.get("unique")]
        assert len(keys) == 1, name
        for column in keys[0]:
            kinds = {constraint["type"] for constraint in model["columns"][column]["constraints"]}
            assert "not_null" in kinds, f"{name}.{column}"


def test_indexes_that_only_bi_needs_are_of_columns_of_their_mart_and_not_in_core_too(manifest: dict) -> None:
    found = 0
    for name, model in models(manifest, "marts").items():
        of_core = [index["columns"] for index in model["config"]["indexes"]]
        for columns in model["config"]["meta"].get("bi_indexes", []):
            found += 1
            assert set(columns) <= set(model["columns"]), name
            assert columns not in of_core, name
    assert found


def test_every_model_is_described(manifest: dict) -> None:
    for layer in ("staging", "intermediate", "marts"):
        for name, model in models(manifest, layer).items():
            assert model["description"].startswith("Grain: "), name


def ancestors(manifest: dict, node: dict) -> list[dict]:
    """The models that a model is made of, each once."""
    found: dict[str, dict] = {}
    ahead = list(node["depends_on"]["nodes"])
    while ahead:
        parent = ahead.pop()
        if parent.startswith("model.") and parent not in found:
            found[parent] = manifest["nodes"][parent]
            ahead += found[parent]["depends_on"]["nodes"]
    return list(found.values())


def money_tested(manifest: dict) -> dict[str, set[str]]:
    """Model -> columns that a test ``money_is_exact`` looks at."""
    found: dict[str, set[str]] = {}
    for node in manifest["nodes"].values():
        if (node.get("test_metadata") or {}).get("name") == "money_is_exact":
            found.setdefault(node["attached_node"], set()).update(node["test_metadata"]["kwargs"]["columns"])
    assert found
    return found


def money_that_nothing_tests(manifest: dict) -> list[str]:
    """Money columns of marts that no test ``money_is_exact`` looks at, in the mart or in what it is made of.

    `old_list_price_amount` is a `list_price_amount`. An amount in the reporting currency is rounded by the macro
    `reporting`; another one that needs no test says why in ``meta: {exact: ...}``.
    """
    tested = money_tested(manifest)
    found = []
    for name, mart in models(manifest, "marts").items():
        family = [mart, *ancestors(manifest, mart)]
        exact = {f"_{column}" for one in family for column in tested.get(one["unique_id"], ())}
        if any("macro.emporium.reporting" in one["depends_on"]["macros"] for one in family):
            exact.add("_reporting_amount")
        found += [
            f"{name}.{column['name']}"
            for column in mart["columns"].values()
            if column["name"].endswith("_amount")
            and not f"_{column['name']}".endswith(tuple(exact))
            and not column["config"].get("meta", {}).get("exact")
        ]
    return found


def test_every_money_column_of_a_mart_is_tested(manifest: dict) -> None:
    assert money_that_nothing_tests(manifest) == []


LOGIC = re.compile(
    r"\b(case|coalesce|nullif|greatest|least|over|filter|distinct\s+on|full\s+join|exists|array_agg|having)\b"
    r"|\{\{\s*(newest|opencart_status|html_unescape)\(|\{%-?\s*if\b"
)
"""What decides something in a model's SQL: what a unit test has edges for."""


def logic_that_nothing_tests(manifest: dict) -> list[str]:
    """Models that decide something and have neither a unit test nor, in ``meta: {no_unit_test: ...}``, a reason."""
    tested = {test["model"] for test in manifest["unit_tests"].values()}
    return sorted(
        name
        for layer in ("staging", "intermediate", "marts")
        for name, model in models(manifest, layer).items()
        if LOGIC.search(re.sub(r"--[^\n]*|(?s:\{#.*?#\})", "", model["raw_code"]))
        and name not in tested
        and not model["config"]["meta"].get("no_unit_test")
    )


def test_every_model_with_logic_has_a_unit_test_or_says_why_not(manifest: dict) -> None:
    assert logic_that_nothing_tests(manifest) == []


def test_every_prediction_table_and_dashboard_has_an_exposure(manifest: dict) -> None:
    migrations = (ROOT / "include" / "warehouse" / "migrations" / "versions").glob("*.py")
    tables = {name for path in migrations for name in re.findall(r"create table predictions\.(\w+)", path.read_text())}
    assert "churn_score" in tables
    exposures = {exposure["name"]: exposure for exposure in manifest["exposures"].values()}
    assert tables <= {name for name, exposure in exposures.items() if exposure["type"] == "ml"}
    kinds = {exposure["type"] for exposure in exposures.values()}
    if any(not path.stem.startswith("_") for path in (ROOT / "dashboard").glob("*.py")):
        assert "dashboard" in kinds
    for name, exposure in exposures.items():
        assert exposure["depends_on"]["nodes"], name
        assert exposure["description"], name


def test_a_description_that_marts_share_is_written_once(manifest: dict) -> None:
    marts = [(name, column) for name, mart in models(manifest, "marts").items() for column in mart["columns"].values()]
    repeated = Counter((column["name"], column["description"]) for _, column in marts)
    assert [
        f"{name}.{column['name']}: a doc block in models/docs.md"
        for name, column in marts
        if repeated[column["name"], column["description"]] > 1 and not column["doc_blocks"]
    ] == []


def test_severity_has_two_names_that_agree(manifest: dict) -> None:
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    assert {test["config"]["severity"].lower() for test in tests} == {"error", "warn"}
    for test in tests:
        told = {"error": "critical", "warn": "warning"}[test["config"]["severity"].lower()]
        assert test["config"]["meta"]["severity"] == told, test["name"]
        assert test["config"]["store_failures"], test["name"]


def test_every_entity_that_a_source_provides_has_its_staging_model_and_no_model_is_left_over(manifest: dict) -> None:
    # A source that provides no conformed entity (holidays, weather) has staging models of its own entities.
    promised = {
        f"stg_{source.source}__{entity}" for source in sources() for entity in source.provides or source.entities
    }
    assert promised == set(models(manifest, "staging"))


def test_every_raw_table_of_a_source_is_declared(manifest: dict) -> None:
    declared = {(node["schema"], node["identifier"]) for node in manifest["sources"].values()}
    # Events stay in the lake; what the warehouse has of them are their sessions.
    assert declared == {
        (source.raw_schema, "sessions" if entity.events else name)
        for source in sources()
        for name, entity in source.entities.items()
    }


def test_staging_reads_only_raw_tables_of_its_own_source(manifest: dict) -> None:
    for name, model in models(manifest, "staging").items():
        source = name.removeprefix("stg_").split("__")[0]
        assert model["depends_on"]["nodes"], name
        for parent in model["depends_on"]["nodes"]:
            # What was made of the same source, and the keys that a night has touched, are no rows of another source.
            is_own = parent.startswith(f"source.emporium.{source}.") or parent.endswith(f"__{source}")
            assert is_own or parent.startswith("model.emporium.int_touched__"), f"{name} reads {parent}"


def test_every_model_that_is_built_by_touched_keys_comes_after_them(manifest: dict) -> None:
    found = {
        node["name"]: node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"].get("touched")
    }
    assert len(found) > 20
    for name, model in found.items():
        assert model["config"]["materialized"] == "incremental", name
        within = {
            "orders": "order_keys", "contents": "content_keys", "months": "days", "sale_days": "days",
            "reviewed": "products",
        }  # fmt: skip
        thing = within.get(model["config"]["touched"], model["config"]["touched"])
        assert f"model.emporium.int_touched__{thing}" in model["depends_on"]["nodes"], name


def test_who_reads_a_table_through_another_reads_both(home: Path, tmp_path: Path) -> None:
    """A row of the one between is another: what it told of has to be built anew, though nothing else reads it."""
    shutil.copytree(dbt.PROJECT / "macros", tmp_path / "macros")
    shutil.copy(dbt.PROJECT / "profiles.yml", tmp_path)
    (tmp_path / "dbt_project.yml").write_text("{name: emporium, profile: emporium}")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "int_touched__order_keys.sql").write_text("select 1 as n")
    (tmp_path / "models" / "steps.sql").write_text(
        "{{ config(materialized='incremental', touched='orders') }} select * from {{ raw('shop', 'steps') }} as steps"
    )
    (tmp_path / "models" / "sources.yml").write_text(
        "{version: 2, sources: [{name: shop, tables: [{name: steps}, {name: returns}, {name: others}]}]}"
    )
    through = {"column": "return_id", "type": "integer", "through": {"entity": "returns", "column": "return_id"}}
    about = {"marketplace": "shop", "provides": [], "changes": {"steps": {"orders": through}}}
    parsed = parse(tmp_path, tmp_path / "target", {"sources": {"shop": about}})
    assert sorted(parsed["nodes"]["model.emporium.steps"]["sources"]) == [["shop", "returns"], ["shop", "steps"]]


def test_intermediate_models_never_read_marts(manifest: dict) -> None:
    marts = {model["unique_id"] for model in models(manifest, "marts").values()}
    for name, model in models(manifest, "intermediate").items():
        assert not marts & set(model["depends_on"]["nodes"]), name


def test_without_the_list_of_sources_nothing_is_built(home: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"run `python -m include\.dbt`"):
        parse(dbt.PROJECT, tmp_path, {})


def test_variables_read_the_same_whatever_the_order_of_files() -> None:
    assert json.dumps(dbt.variables()) == json.dumps(dbt.variables(), sort_keys=True)


def test_password_travels_only_in_the_variable_that_dbt_keeps_out_of_its_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPORIUM_DSN", "postgresql://owner:x@db.example:6543/shop%2Ddata?sslmode=require")
    monkeypatch.setenv("EMPORIUM_SECRET_PG_TRANSFORMER", "p@ss:word%")
    settings.cache_clear()
    try:
        found = dbt.environment()
    finally:
        settings.cache_clear()
    assert found.pop("DBT_ENV_SECRET_PASSWORD") == "p@ss:word%"
    assert not any("p@ss" in value for value in found.values())
    assert found["EMPORIUM_DBT_HOST"] == "db.example"
    assert found["EMPORIUM_DBT_PORT"] == "6543"
    assert found["EMPORIUM_DBT_DATABASE"] == "shop-data"
    assert found["EMPORIUM_DBT_SSLMODE"] == "require"


def result(name: str, status: str, kind: str = "test", severity: str = "ERROR", **more) -> SimpleNamespace:
    """A dbt node result, as far as the summary looks at it."""
    node = SimpleNamespace(
        name=name,
        resource_type=kind,
        compiled_path=f"target/compiled/{name}.sql",
        attached_node="model.emporium.fact_order",
        schema="dbt_tests",
        alias=f"{name}_0d1b9e",
        config=SimpleNamespace(severity=severity, store_failures=True),
    )
    return SimpleNamespace(node=node, status=status, execution_time=1.0, **{"message": None, "failures": None, **more})


def test_summary_puts_failures_first_and_names_their_sql() -> None:
    lines = dbt.summary(
        [
            result("late", "skipped"),
            result("odd", "warn", message="Got 2 results"),
            result("fact_order", "success", kind="model"),
            result("wrong", "fail", message="Got 3\n  results", failures=3),
        ],
        Path("/home/dbt/target"),
    )
    assert lines[0].splitlines() == [
        "FAILED test wrong: Got 3 results",
        "  rows: select * from dbt_tests.wrong_0d1b9e",
        "  /home/dbt/target/compiled/wrong.sql",
    ]
    assert [line.split()[0] for line in lines] == ["FAILED", "warned", "skipped", "slowest:"]


def test_verdicts_keep_severity_and_leave_out_what_was_not_checked() -> None:
    found = dbt.checks(
        [
            result("odd", "warn", severity="WARN", failures=2),
            result("wrong", "fail", failures=3),
            result("fine", "pass", failures=0),
            result("late", "skipped"),
            result("fact_order", "success", kind="model"),
        ],
        date(2025, 1, 1),
    )
    assert [(one.rule, one.severity, one.is_passed, one.n_failed) for one in found] == [
        ("odd", "warning", False, 2),
        ("wrong", "critical", False, 3),
        ("fine", "critical", True, 0),
    ]
    assert {one.target for one in found} == {"fact_order"}
    assert [one.observed for one in found] == [
        {"rows": "dbt_tests.odd_0d1b9e"},
        {"rows": "dbt_tests.wrong_0d1b9e"},
        {},
    ]


@pytest.mark.parametrize(
    ("command", "extra", "as_of"),
    [
        ("build", ["--select", "fact_order"], DAY),
        ("build", ["-s", "fact_order"], DAY),
        ("build", ["--exclude=stg_olist__orders"], DAY),
        ("build", ["--empty"], DAY),
        ("build", [], None),
        ("run", [], DAY),
    ],
)
def test_a_part_of_production_is_never_built_alone(
    command: str, extra: list[str], as_of: date | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dbt.main([command, *(["--as-of", str(as_of)] if as_of else []), *extra]) == 2
    assert "make dbt SELECT=" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [[], ["--full-refresh"], ["--threads", "1", "--fail-fast"], ["--threads=1"]])
def test_a_night_may_choose_how_it_is_built(extra: list[str]) -> None:
    assert dbt.refusal("build", extra, DAY) is None


@pytest.mark.parametrize("command", ["test", "docs", "list", "compile", "parse"])
def test_what_builds_nothing_may_be_narrowed(command: str) -> None:
    assert dbt.refusal(command, ["--select", "fact_order"], None) is None


def test_the_nightly_build_leaves_out_unit_tests_unless_asked() -> None:
    assert "--exclude-resource-type" in dbt.arguments("build")
    assert "--exclude-resource-type" not in dbt.arguments("build", ["--resource-type", "unit_test"])
    assert "--exclude-resource-type" not in dbt.arguments("test")


def test_without_a_warehouse_a_build_says_so_and_nothing_else(tmp_path: Path, closed_port: int) -> None:
    # dbt is imported meanwhile, by a thread that must not outlive the process with a traceback.
    environment = os.environ | {"EMPORIUM_HOME": str(tmp_path), "EMPORIUM_PG_PORT": str(closed_port)}
    line = [sys.executable, "-m", "include.dbt", "build", "--as-of", "2025-01-01"]
    done = subprocess.run(line, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("dbt build: connection")
    assert "Traceback" not in done.stderr
