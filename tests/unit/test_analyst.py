"""The analyst's schema: its name, and what is said where there is nothing to build."""

import getpass
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from include import analyst
from include.settings import settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    monkeypatch.delenv("EMPORIUM_DBT_SCHEMA", raising=False)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


@pytest.mark.parametrize(
    ("user", "name"),
    [("ann", "dev_ann"), ("Ann.O'Neil@shop", "dev_ann_o_neil_shop"), ("a" * 80, "dev_" + "a" * 59), ("_x_", "dev_x")],
)
def test_schema_is_named_after_the_user(user: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: user)
    assert analyst.schema() == name
    assert analyst.NAME.fullmatch(name)


def test_a_user_without_a_name_is_asked_for_one(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "___")
    assert analyst.main(["--clean"]) == 1
    assert "set EMPORIUM_DBT_SCHEMA" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["core", "dev_", "dev_Ann", "dev_a-b", "dev_" + "a" * 60, "published"])
def test_schema_of_production_or_of_nobody_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("EMPORIUM_DBT_SCHEMA", name)
    settings.cache_clear()
    for line in ([], ["--clean"]):
        assert analyst.main(line) == 1
        assert f"EMPORIUM_DBT_SCHEMA is {name}" in capsys.readouterr().err


def test_without_a_green_night_there_is_nothing_to_defer_to(capsys) -> None:
    assert analyst.main(["--select", "fact_order"]) == 1
    assert "no night has been green" in capsys.readouterr().err


def missed(criterion: str) -> str:
    return f"Compilation Error\n  The selection criterion '{criterion}' does not match any enabled nodes"


def test_a_selection_that_finds_nothing_is_answered_with_what_it_may_have_meant(tmp_path: Path) -> None:
    nodes = {
        "a": {"name": "fact_order", "resource_type": "model"},
        "b": {"name": "facts_order_is_tested", "resource_type": "test"},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"nodes": nodes}))
    assert "Is it fact_order? " in analyst.plain(missed("+facts_order+"), tmp_path)
    assert "Is it" not in analyst.plain(missed("zzz"), tmp_path)
    assert "nothing has changed" in analyst.plain(missed(analyst.CHANGED), tmp_path)
    assert analyst.plain("Database Error: out of disk", tmp_path) == "Database Error: out of disk"
