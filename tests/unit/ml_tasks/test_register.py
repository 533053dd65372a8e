"""What the registry says when MLflow is down, and which version of a day it believes."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest

from include.settings import settings
from ml_tasks import _command, use_case
from ml_tasks.lifecycle import register
from tests.unit.ml_tasks import simulate

CASE, CTX = use_case("churn"), simulate.context(90)
VERSION = register.Version("1", "run", {}, "1")


@pytest.fixture
def no_server(monkeypatch):
    """MLflow's address is a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("EMPORIUM_MLFLOW_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings.cache_clear()
    register.client.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()
    register.client.cache_clear()


ASK = {
    "find": lambda: register.find(CASE, CTX, "f"),
    "load": lambda: register.load("m", "1"),
    "register": lambda: register.register(CASE, CTX, "f", {"model.txt": "tree"}, {}),
    "attach": lambda: register.attach(VERSION, "card", {"log_loss": 0.5}, None),
    "attach without metrics": lambda: register.attach(VERSION, "card", {}, None),
    "has_card": lambda: register.has_card(VERSION),
    "point_alias": lambda: register.point_alias(CASE, "1"),
    "take the alias away": lambda: register.point_alias(CASE, None),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_mlflow_that_is_down_is_one_sentence(ask, no_server):
    with pytest.raises(RuntimeError, match=r"^MLflow at http://\S+ did not [^\n]+$"):
        ask()


def test_mlflow_that_is_down_fails_one_use_case_and_the_next_one_runs(no_server, monkeypatch, capsys):
    def what(case, as_of):
        if case.name == "churn":
            register.find(case, CTX, "f")
        print(f"{case.name} ran")

    monkeypatch.setattr(sys, "argv", ["train", "churn", "demand_category", "--as-of", "2025-12-31"])
    assert _command.run(what, "") == 1
    out, err = capsys.readouterr()
    assert out == "demand_category ran\n"
    assert err.startswith("churn as of 2025-12-31: RuntimeError: MLflow at ")
    assert err.count("\n") == 1


def registry(monkeypatch, versions, refused):
    found = [SimpleNamespace(version=version) for version in versions]
    monkeypatch.setattr(register, "client", lambda: SimpleNamespace(search_model_versions=lambda filter_string: found))

    def load(name, version):
        if version in refused:
            raise register.Tampered(f"Model {name} version {version} is refused: model.txt is not the one.")
        return register.Version(version, "run", {}, "1")

    monkeypatch.setattr(register, "load", load)


@pytest.mark.parametrize(("refused", "believed"), [((), "9"), (("9",), "10"), (("9", "10"), "11")])
def test_oldest_version_that_is_not_refused_is_found(refused, believed, monkeypatch, capsys):
    registry(monkeypatch, ["10", "11", "9"], refused)
    assert register.find(CASE, CTX, "f").version == believed
    said = capsys.readouterr().out
    assert [f"version {one} is refused" in said for one in ("9", "10", "11")] == [
        one in refused for one in ("9", "10", "11")
    ]


def test_day_whose_every_version_is_refused_has_no_challenger_yet(monkeypatch):
    registry(monkeypatch, ["1", "2"], ("1", "2"))
    assert register.find(CASE, CTX, "f") is None
