"""The dbt project's policies, read from its manifest: no database is needed to parse."""

import json
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

from include import dbt
from include.ingest.sources import sources
from include.settings import settings

OWNER = "Owner: data platform."


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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("EMPORIUM_HOME", str(folder))
        patch.delenv("EMPORIUM_DSN", raising=False)
        settings.cache_clear()
        for name, value in dbt.environment().items():
            patch.setenv(name, value)
        yield folder
    settings.cache_clear()


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


def test_every_model_is_described(manifest: dict) -> None:
    for layer in ("staging", "intermediate", "marts"):
        for name, model in models(manifest, layer).items():
            assert model["description"].startswith("Grain: "), name


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
            assert parent.startswith(f"source.emporium.{source}."), f"{name} reads {parent}"


def test_intermediate_models_never_read_marts(manifest: dict) -> None:
    marts = {model["unique_id"] for model in models(manifest, "marts").values()}
    for name, model in models(manifest, "intermediate").items():
        assert not marts & set(model["depends_on"]["nodes"]), name


def test_a_source_is_added_by_its_yaml_and_its_staging_models_alone(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "dbt_project"
    shutil.copytree(dbt.PROJECT, project)
    folder = project / "models" / "staging" / "corner_shop"
    folder.mkdir()
    (folder / "_corner_shop.yml").write_text("sources: [{name: corner_shop, tables: [{name: o}]}]")
    (folder / "stg_corner_shop__orders.sql").write_text("select * from {{ source('corner_shop', 'o') }}")
    variables = dbt.variables()
    variables["sources"]["corner_shop"] = {"marketplace": "corner_shop", "currency": "EUR", "provides": ["orders"]}

    manifest = parse(project, tmp_path / "target", variables)

    parents = models(manifest, "intermediate")["int_orders__versions"]["depends_on"]["nodes"]
    assert "model.emporium.stg_corner_shop__orders" in parents
    assert "model.emporium.stg_olist__orders" in parents


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
        config=SimpleNamespace(severity=severity),
    )
    return SimpleNamespace(node=node, status=status, execution_time=1.0, **{"message": None, "failures": None, **more})


def test_summary_puts_failures_first_and_names_their_sql() -> None:
    lines = dbt.summary(
        [
            result("late", "skipped"),
            result("odd", "warn", message="Got 2 results"),
            result("fact_order", "success", kind="model"),
            result("wrong", "fail", message="Got 3\n  results"),
        ],
        Path("/home/dbt/target"),
    )
    assert lines[0] == "FAILED test wrong: Got 3 results\n  /home/dbt/target/compiled/wrong.sql"
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


def test_the_nightly_build_leaves_out_unit_tests_unless_asked() -> None:
    assert "--exclude-resource-type" in dbt.arguments("build")
    assert "--exclude-resource-type" not in dbt.arguments("build", ["--resource-type", "unit_test"])
    assert "--exclude-resource-type" not in dbt.arguments("test")
