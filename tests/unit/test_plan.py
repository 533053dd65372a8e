"""Which sources a day takes, and what the command line says when something is not right."""

from datetime import date

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.ingest.plan import arguments, open_group, opened, taken
from include.settings import settings

DAY = date(2025, 12, 31)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    monkeypatch.delenv("EMPORIUM_DATA", raising=False)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def test_a_named_group_becomes_active_and_is_remembered():
    assert opened() == {}
    lines = arguments(DAY, DAY, "demo", None)
    assert [line.split()[1] for line in lines] == ["demo_clicks", "demo_outlet", "demo_shop"]
    assert opened()["demo"].first == date(2024, 1, 1)
    assert arguments(DAY, DAY, None, None) == lines


def test_a_day_outside_of_a_groups_span_takes_nothing_of_it():
    open_group("demo")
    assert taken(date(2030, 1, 1)) == []


def test_a_range_and_a_folder_travel_with_the_arguments(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "OnlineRetail.csv").write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,A,x,1,2011-01-03 10:00:00,1.0,5,UK\n2,A,x,1,2011-02-03 10:00:00,1.0,5,UK\n"
    )
    [line] = arguments(date(2011, 2, 1), date(2011, 1, 5), "online_retail", folder)
    assert line == f"--source online_retail --as-of 2011-02-01 --from 2011-01-05 --data '{folder}'"


def test_an_unknown_group_or_a_missing_folder_is_one_sentence():
    with pytest.raises(ValueError, match="There is no group of sources 'shop'"):
        open_group("shop")
    with pytest.raises(ValueError, match="--data FOLDER or EMPORIUM_DATA"):
        open_group("olist")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["audit", "--as-of", "tomorrow"], "write YYYY-MM-DD"),
        (["dsn", "--role", "king"], "There is no role king"),
        (["run", "--as-of", "2025-13-01"], "write YYYY-MM-DD"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, says):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code != 0
    assert says in " ".join(done.output.replace("│", " ").split())


def test_dsn_prints_a_url_per_role():
    owner, reader = (CliRunner().invoke(app, ["dsn", *role]).stdout for role in ([], ["--role", "bi_reader"]))
    assert owner.startswith("postgresql://emporium:")
    assert reader.startswith("postgresql://bi_reader:")
