"""Which sources a day takes, and what the command line says when something is not right."""

from datetime import date

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.ingest.plan import arguments, open_group, opened, taken
from include.settings import settings

DAY = date(2025, 12, 31)
REFERENCE = ["ecb_rates", "holidays"]
"""What every night takes beside its own sources."""


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
    assert [line.split()[1] for line in lines] == ["demo_clicks", "demo_outlet", "demo_shop", *REFERENCE]
    assert opened()["demo"].first == date(2024, 1, 1)
    assert arguments(DAY, DAY, None, None) == lines


def test_a_day_outside_of_a_groups_span_takes_nothing_of_it():
    open_group("demo")
    assert taken(date(2030, 1, 1)) == []


def test_what_every_night_takes_is_taken_once_and_never_opens_itself():
    assert [source.source for source, _ in taken(DAY, "external")] == ["weather", *REFERENCE]
    assert [source.source for source, _ in taken(DAY, "demo")][-2:] == REFERENCE
    assert set(opened()) == {"external", "demo"}
    both = [source.source for source, _ in taken(DAY)]
    assert sorted(both) == sorted({*both})
    assert set(REFERENCE) < set(both)


def test_rates_alone_can_be_asked_for():
    assert [source.source for source, _ in taken(DAY, "reference")] == REFERENCE


def test_a_range_and_a_folder_travel_with_the_arguments(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "OnlineRetail.csv").write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,A,x,1,2011-01-03 10:00:00,1.0,5,UK\n2,A,x,1,2011-02-03 10:00:00,1.0,5,UK\n"
    )
    line, *reference = arguments(date(2011, 2, 1), date(2011, 1, 5), "online_retail", folder)
    # What every night takes has no folder of its own.
    assert reference == [f"--source {name} --as-of 2011-02-01 --from 2011-01-05" for name in REFERENCE]
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
