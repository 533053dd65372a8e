"""The policy that every DAG keeps. It cannot pass on an empty bag: the layers are named here."""

import re
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from include.ingest.sources import Name

ROOT = Path(__file__).resolve().parent.parent.parent
LAYERS = ["ingest", "warehouse", "features", "train", "score", "monitor"]
DAGS = [*LAYERS, "maintenance"]


def tasks_of(bag, dag_id):
    tasks = bag.dags[dag_id].tasks
    assert tasks, f"{dag_id} has no task"
    return tasks


def option(task, name):
    """An operator's attribute, mapped or not."""
    return task.partial_kwargs.get(name) if hasattr(task, "partial_kwargs") else getattr(task, name)


def command(task) -> str:
    text = getattr(task, "bash_command", None)
    if text is None:  # mapped: the command is made from an XCom when it runs
        source = (ROOT / "dags" / f"{task.dag.dag_id}.py").read_text()
        found = re.search(rf'mapped_command_task\("{task.task_id}", "([^"]+)"', source)
        assert found, task.task_id
        text = found.group(1)
    return text


def test_the_bag_holds_just_the_layers_and_maintenance_and_parses_without_errors(bag):
    assert bag.import_errors == {}
    assert sorted(bag.dags) == sorted(DAGS)
    assert sorted(path.stem for path in (ROOT / "dags").glob("*.py")) == sorted(DAGS), "file stem = dag_id"


@pytest.mark.parametrize("dag_id", DAGS)
def test_dag_has_docs_owner_tags_and_one_day_at_a_time(bag, dag_id):
    dag = bag.dags[dag_id]
    assert "Owner:" in dag.doc_md
    assert f"docs/runbooks/{dag_id}.md" in dag.doc_md
    assert (ROOT / "docs" / "runbooks" / f"{dag_id}.md").is_file()
    assert any(tag.startswith("layer:") for tag in dag.tags)
    assert any(re.fullmatch(r"tier:[123]", tag) for tag in dag.tags)
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert dag.is_paused_upon_creation is False


@pytest.mark.parametrize("dag_id", DAGS)
def test_task_is_a_command_with_owner_timeout_and_retries(bag, dag_id):
    for task in tasks_of(bag, dag_id):
        assert re.match(r"^[a-z]+(_[a-z]+)+$", task.task_id), "verb_noun"
        text = command(task)
        module = re.match(r"python -m ([\w.]+)", text)
        assert module, f"{task.task_id} is not a command: {text}"
        path = ROOT / Path(*module.group(1).split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{path} cannot be run"
        assert option(task, "owner") == "data-platform"
        assert option(task, "execution_timeout") is not None
        is_gate = task.task_id.startswith("gate_")
        assert option(task, "retries") == 0 if is_gate else option(task, "retries") >= 1, (
            "bad data does not mend itself"
        )
        if not hasattr(task, "partial_kwargs"):
            assert "--as-of {{ partition_key }}" in text, "one key: the business day"


def test_heavy_tasks_sit_in_pools_that_exist(bag):
    import json

    pools = json.loads((ROOT / "include" / "airflow" / "pools.json").read_text())
    used = {option(task, "pool") for dag_id in LAYERS for task in tasks_of(bag, dag_id)} - {"default_pool", None}
    assert used == set(pools)
    heavy = {"build_models": "warehouse", "build_features": "spark", "train_churn": "train", "score_churn": "train"}
    by_id = {task.task_id: task for dag_id in LAYERS for task in tasks_of(bag, dag_id)}
    assert {name: option(by_id[name], "pool") for name in heavy} == heavy


def test_layers_are_joined_by_one_partitioned_asset_each(bag):
    emitted = {}
    for dag_id in LAYERS:
        outlets = [(task, asset) for task in tasks_of(bag, dag_id) for asset in (option(task, "outlets") or [])]
        assert len(outlets) == (0 if dag_id == "monitor" else 1), f"{dag_id} emits {outlets}"
        for task, asset in outlets:
            assert not task.downstream_task_ids, "the asset is emitted by the last task"
            emitted[asset.name] = dag_id
    consumed = {}
    for dag_id in LAYERS[1:]:
        timetable = bag.dags[dag_id].timetable
        assert type(timetable).__name__ == "PartitionedAssetTimetable"
        consumed[dag_id] = timetable.asset_condition.name
    assert [emitted[consumed[dag_id]] for dag_id in LAYERS[1:]] == LAYERS[:-1]


def test_ingest_takes_the_day_that_has_ended(bag):
    timetable = bag.dags["ingest"].timetable
    assert type(timetable).__name__ == "CronPartitionTimetable"
    assert vars(timetable)["_run_offset"] == -1 if "_run_offset" in vars(timetable) else timetable.run_offset == -1


def test_ingest_takes_any_name_of_a_source(bag):
    wanted = TypeAdapter(Name).json_schema()["pattern"]
    assert bag.dags["ingest"].params.get_param("source").schema["pattern"] == wanted


def test_maintenance_comes_after_the_night_has_begun_and_is_no_part_of_it(bag):
    dag = bag.dags["maintenance"]
    assert type(dag.timetable).__name__ == "CronPartitionTimetable"
    assert [option(task, "outlets") or [] for task in tasks_of(bag, "maintenance")] == [[]]


def test_every_dag_is_unpaused_before_a_night(bag):
    from include.night import BESIDE
    from include.night import LAYERS as OF_A_NIGHT

    assert sorted(bag.dags) == sorted((*OF_A_NIGHT, *BESIDE))


def test_dag_files_are_thin_and_parse_fast(bag):
    from airflow.dag_processing.dagbag import DagBag

    for path in (ROOT / "dags").glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 90, path.name
        assert not re.search(r"^\s*(import|from) (pandas|psycopg|sqlalchemy|include\.warehouse|ml_tasks)", text, re.M)
    started = time.process_time()
    DagBag(str(ROOT / "dags"))
    assert time.process_time() - started < 2
