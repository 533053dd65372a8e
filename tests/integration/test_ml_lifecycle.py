"""Train, decide, register in a real MLflow server, score, audit, publish: as commands would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from include.settings import settings
from include.warehouse import publish
from include.warehouse.engine import connect, dsn
from ml_tasks import use_case
from ml_tasks.lifecycle import register
from ml_tasks.lifecycle.gate import decision_of
from ml_tasks.lifecycle.score import score
from ml_tasks.lifecycle.train import train
from tests.integration.conftest import free_port
from tests.unit.ml_tasks import simulate

pytestmark = pytest.mark.integration

DAY, NEXT = date(2025, 12, 31), date(2026, 1, 1)
NAMES = ("demand_forecast", "demand_category", "churn")


@pytest.fixture(scope="module")
def mlflow(warehouse: Path):
    """A real MLflow server on the warehouse's Postgres; its artifacts folder is yielded."""
    port = free_port()
    home = warehouse / "mlflow"
    home.mkdir()
    before = os.environ.get("EMPORIUM_MLFLOW_PORT")
    os.environ["EMPORIUM_MLFLOW_PORT"] = str(port)
    settings.cache_clear()
    register.client.cache_clear()
    store = dsn("mlflow", database="mlflow").replace("postgresql://", "postgresql+psycopg://", 1)
    log = open(home / "server.log", "w")  # noqa: SIM115
    server = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--artifacts-destination", str(home / "artifacts"),
        ],
        env={**os.environ, "MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=home, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (home / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "MLflow did not start"
                time.sleep(0.5)
        yield home / "artifacts"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()
        os.environ.pop("EMPORIUM_MLFLOW_PORT")
        if before is not None:
            os.environ["EMPORIUM_MLFLOW_PORT"] = before
        settings.cache_clear()
        register.client.cache_clear()


@pytest.fixture(scope="module")
def world(mlflow: Path):
    """Two days of features and orders in a lake of their own."""
    os.environ["EMPORIUM_LAKE"] = str(mlflow.parent / "lake")
    settings.cache_clear()
    history, shop = simulate.demand_history(60), simulate.shop(2500, as_of=NEXT, n_days=701)
    simulate.write_lake(history, shop)
    today = simulate.user_behavior(shop["orders"].assign(amount=20.0), DAY)
    simulate.write_lake(
        history.assign(as_of=history["as_of"] + pd.Timedelta(days=1)),
        {"behaviour": today, "orders": shop["orders"]},
    )
    yield mlflow
    os.environ.pop("EMPORIUM_LAKE")
    settings.cache_clear()


@pytest.fixture(scope="module")
def night(world: Path):
    """Every use case trained and scored as of DAY; MLflow's artifacts folder is passed on."""
    for name in NAMES:
        train(use_case(name), DAY)
        score(use_case(name), DAY)
    return world


def files_of(artifacts: Path, run_id: str | None, name: str) -> Path:
    (path,) = [one for one in artifacts.rglob(name) if run_id in one.parts]
    return path


def decided(name: str, as_of: date):
    with connect("scorer") as conn:
        decision = decision_of(conn, name, as_of)
    assert decision is not None
    return decision


def test_a_night_of_each_use_case_is_registered_scored_audited_and_published(night, monkeypatch):
    from expectations import predictions

    for name in NAMES:
        decision = decided(name, DAY)
        assert decision.is_promoted, decision.reason
        assert decision.ci_high < 0
        aliases = register.client().get_registered_model(decision.champion_name).aliases
        assert aliases == {"champion": decision.champion_version}
        files = {one.path for one in register.client().list_artifacts(decision.champion_run_id)}
        assert {"model", "model_card.md"} <= files
        score(use_case(name), DAY)  # another test may have published or rejected what the night staged
    monkeypatch.setattr(sys, "argv", ["predictions", "--as-of", str(DAY)])
    assert predictions.main() == 0
    waiting = publish.staged(DAY)
    assert len(waiting) == 3
    for item in waiting:
        assert publish.publish(item.target, DAY, item.token).n_rows == item.n_rows > 0
    with connect("bi_reader") as conn:
        row = conn.execute("select model_name, reason_1 from bi.churn_score_latest order by decile limit 1").fetchone()
    assert row[0] == "churn-lightgbm"
    assert "(raises the risk)" in row[1]


def test_rerun_makes_the_same_decision_version_and_rows(night):
    case = use_case("churn")
    with connect() as conn:
        before = conn.execute("select * from ops.model_decision order by use_case, as_of").fetchall()
    n_versions = len(register.client().search_model_versions(f"name = '{case.model}'"))
    train(case, DAY)
    with connect() as conn:
        assert conn.execute("select * from ops.model_decision order by use_case, as_of").fetchall() == before
    assert len(register.client().search_model_versions(f"name = '{case.model}'")) == n_versions
    for _ in range(2):
        score(case, DAY)
        (item,) = [one for one in publish.staged(DAY) if one.target == "churn_score"]
        publish.mark_audited(item.token, True)
        published = publish.publish("churn_score", DAY, item.token)
    assert not published.is_changed


def test_refitting_from_scratch_gives_the_same_files(night):
    case = use_case("churn")
    with connect("scorer") as conn:
        first = decision_of(conn, "churn", DAY)
    stored = register.load(first.champion_name, first.champion_version)
    register.client().delete_model_version_tag(case.model, first.champion_version, "data_fingerprint")
    try:
        again = train(case, DAY)
        assert again.champion_version != first.champion_version
        assert register.load(case.model, again.champion_version).files == stored.files
        assert (again.challenger_value, again.ci_low) == (first.challenger_value, first.ci_low)
    finally:
        register.client().delete_model_version(case.model, again.champion_version)
        register.client().set_model_version_tag(
            case.model, first.champion_version, "data_fingerprint", first.data_fingerprint
        )
        assert train(case, DAY).champion_version == first.champion_version


def test_challenger_that_does_not_win_is_registered_and_not_promoted(night):
    case = use_case("churn")
    decision = train(case, NEXT)
    with connect("scorer") as conn:
        incumbent = decision_of(conn, "churn", DAY)
    assert not decision.is_promoted
    assert decision.champion_version == incumbent.champion_version
    assert decision.challenger_version not in (None, incumbent.champion_version)
    assert register.client().get_model_version(case.model, decision.challenger_version).tags["as_of"] == str(NEXT)
    assert register.client().get_registered_model(case.model).aliases == {"champion": incumbent.champion_version}


def test_naive_rule_is_champion_where_no_model_wins_and_the_table_says_so(night):
    hopeless = replace(
        use_case("churn"),
        name="churn_hopeless",
        model="churn_hopeless-lightgbm",
        predict=lambda files, sample: pd.DataFrame({"churn_probability": 0.999}, index=sample.rows.index),
    )
    decision = train(hopeless, DAY)
    assert (decision.champion_name, decision.champion_version) == ("naive:recency_rate", "0")
    assert decision.challenger_version == "1"
    assert "champion" not in register.client().get_registered_model(hopeless.model).aliases
    table = score(hopeless, DAY)
    with connect("scorer") as conn:
        rows = conn.execute(
            f"select distinct model_name, model_version, reason_2 from predictions_stage.{table}"
        ).fetchall()
        reason = conn.execute(f"select reason_1 from predictions_stage.{table} limit 1").fetchone()[0]
    assert rows == [("naive:recency_rate", "0", None)]
    assert reason.startswith("no order for ")


def test_incumbent_that_the_code_cannot_run_any_more_is_replaced(night):
    case = replace(use_case("churn"), version=2)
    decision = train(case, NEXT)
    try:
        assert decision.is_promoted
        assert decision.incumbent_value is None
        assert "code version 1" in decision.reason
    finally:
        register.client().delete_model_version(case.model, decision.champion_version)
        assert not train(use_case("churn"), NEXT).is_promoted


def test_older_day_never_moves_the_alias_back(night):
    case = use_case("churn")
    newest = train(case, NEXT)
    other = newest.challenger_version
    assert other not in (None, newest.champion_version)
    register.client().set_registered_model_alias(case.model, "champion", other)
    try:
        assert train(case, DAY).champion_version != other
        assert register.client().get_registered_model(case.model).aliases["champion"] == other
    finally:
        register.client().set_registered_model_alias(case.model, "champion", newest.champion_version)


def test_version_that_was_tampered_with_is_healed_by_a_rerun_of_its_day(night, capsys):
    case, first = use_case("churn"), decided("churn", DAY)
    stored = register.load(case.model, first.champion_version).files
    path = files_of(night, first.champion_run_id, "model.txt")
    kept, again = path.read_text(), None
    path.write_bytes(kept.replace("leaf_value=", "leaf_value=9", 1).encode())
    try:
        again = train(case, DAY)
        assert f"version {first.champion_version} is refused: model.txt" in capsys.readouterr().out
        assert int(again.champion_version) > int(first.champion_version)
        assert register.load(case.model, again.champion_version).files == stored
        assert train(case, DAY) == again
        score(case, DAY)
    finally:
        path.write_text(kept)
        if again is not None:
            register.client().delete_model_version(case.model, again.champion_version)
        assert train(case, DAY) == first


def test_model_card_follows_a_decision_with_other_numbers_and_only_such(night, monkeypatch):
    case, first = use_case("churn"), decided("churn", DAY)
    path = files_of(night, first.champion_run_id, "model_card.md")
    kept, written = path.read_text(), []
    attach = register.attach
    monkeypatch.setattr(register, "attach", lambda *given: (written.append(given), attach(*given)))
    train(case, DAY)
    assert not written
    other = train(replace(case, loss=lambda rows, said: 2 * case.loss(rows, said)), DAY)
    try:
        assert other.challenger_version == first.challenger_version
        assert other.reason != first.reason
        assert other.reason in path.read_text()
    finally:
        assert train(case, DAY) == first
    assert path.read_text() == kept


def test_changed_model_file_is_refused_by_scoring(night):
    case = use_case("demand_forecast")
    (path,) = [one for one in night.rglob("p50.txt") if "demand" not in one.parts][:1]
    kept = path.read_text()
    path.write_text(kept.replace("leaf_value=", "leaf_value=9", 1))
    try:
        with pytest.raises(register.Tampered, match=r"demand_forecast-lightgbm version 1 is refused: p50.txt"):
            score(case, DAY)
    finally:
        path.write_text(kept)


def test_scoring_without_a_decision_names_the_command(night):
    with pytest.raises(LookupError, match=r"python -m ml_tasks.train demand_category --as-of 2026-01-01"):
        score(use_case("demand_category"), NEXT)


def test_broken_predictions_are_rejected_and_never_published(night, monkeypatch, capsys):
    from expectations import predictions

    score(use_case("churn"), DAY)
    (item,) = [one for one in publish.staged(DAY) if one.target == "churn_score"]
    with connect("scorer") as conn:
        conn.execute(f"update predictions_stage.{item.stage_table} set churn_probability = 1.5 where decile = 1")
    monkeypatch.setattr(sys, "argv", ["predictions", "--as-of", str(DAY)])
    assert predictions.main() == 1
    assert "churn_probability_is_in_0_1" in capsys.readouterr().err
    with pytest.raises(publish.PublishError, match="rejected"):
        publish.publish("churn_score", DAY, item.token)
    with connect("bi_reader") as conn:
        assert conn.execute("select count(*) from bi.churn_score where churn_probability > 1").fetchone()[0] == 0
