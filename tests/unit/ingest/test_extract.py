"""Adapters of files: partitions, known times, missing files."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from include.ingest.connectors import Batch, Connector, SourceError
from include.ingest.extract import extract, extracts, span
from include.ingest.sources import Source, load_source
from include.settings import settings
from tests.outlet import drop

DAY = date(2025, 3, 2)


def _outlet(first=DAY, last=DAY):
    return {one.entity: one for one in extract(load_source("demo_outlet"), first, last)}


def test_what_a_days_file_says_was_known_on_that_day(home):
    row = "{},ann@example.org,Ohio,2025-03-01T10:00:00Z,created,USD,{}"
    times = ["2025-03-02T11:00:00Z", "2025-03-01T11:00:00Z", "2025-03-09T11:00:00Z", "soon"]
    drop(DAY, orders=[row.format(at, time) for at, time in enumerate(times)])
    rows = _outlet()["orders"].rows
    assert rows["partition_on"].to_pylist() == [DAY] * 4
    assert rows["known_at"].to_pylist() == [
        datetime(2025, 3, 2, 11, tzinfo=UTC),
        datetime(2025, 3, 2, tzinfo=UTC),
        datetime(2025, 3, 2, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2025, 3, 2, tzinfo=UTC),
    ]
    assert rows["_file"][0].as_py() == "demo/outlet/2025-03-02/orders.csv"
    assert rows["_line"].to_pylist() == [2, 3, 4, 5]


def test_nothing_personal_is_in_the_rows_whatever_column_it_stands_in(home):
    good = "1,ann@example.org,Ohio,2025-03-02T10:00:00Z,created,USD,2025-03-02T10:00:00Z"
    shifted = "2,Ohio,ann@example.org,2025-03-02T10:00:00Z,created,USD,2025-03-02T10:00:00Z"
    broken = "3,ann@example.org,Ohio"
    drop(DAY, orders=[good, shifted, broken])
    found = _outlet()["orders"]
    assert "ann@" not in str(found.rows.to_pylist())
    assert found.rows["customer_region"].to_pylist() == ["Ohio", "***@***", None]
    assert [(one.line, one.text) for one in found.broken] == [(4, "3,***@***,Ohio")]
    assert found.rows["_error"].to_pylist() == [None, None, "3 fields instead of 7"]


def test_a_missing_days_file_names_the_path_unless_it_is_optional(home):
    folder = drop(DAY)
    assert _outlet()["products"].rows.num_rows == 0
    (folder / "payments.csv").unlink()
    with pytest.raises(SourceError, match=r"2025-03-02/payments\.csv .* has not delivered 2025-03-02"):
        _outlet()
    with pytest.raises(SourceError, match=r"folder .*2025-03-03 is missing"):
        _outlet(date(2025, 3, 3), date(2025, 3, 3))


def test_a_range_of_days_keeps_each_day_apart(home):
    row = "{},a@b.org,Ohio,2025-03-01T10:00:00Z,created,USD,2025-03-02T10:00:00Z"
    drop(date(2025, 3, 1), orders=[row.format(1)])
    drop(date(2025, 3, 2))
    drop(date(2025, 3, 3), orders=[row.format(2), row.format(3)])
    rows = _outlet(date(2025, 3, 1), date(2025, 3, 3))["orders"].rows
    assert rows["partition_on"].to_pylist() == [date(2025, 3, 1), date(2025, 3, 3), date(2025, 3, 3)]


def test_a_dump_says_its_span_and_a_broken_line_belongs_to_the_day_of_the_line_before(home, tmp_path):
    dump = tmp_path / "dump"
    dump.mkdir()
    (dump / "OnlineRetail.csv").write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,a,A,1,2011-01-03 10:00:00,1.5,17850,UK\n"
        "broken,line\n"
        "2,b,B,1,2011-01-07 10:00:00,1.5,,UK\n"
        "1,a,A,1,2011-01-03 10:00:00,1.5,17850,UK\n"
    )
    source = load_source("online_retail")
    assert span(source, dump) == (date(2011, 1, 3), date(2011, 1, 7))
    (found,) = extract(source, date(2011, 1, 3), date(2011, 1, 3), dump)
    assert found.rows["line_no"].to_pylist() == ["1", None, "1"]
    assert found.rows["stock_code"].to_pylist() == ["A", None, "A"]
    assert [(one.partition_on, one.line, one.text) for one in found.broken] == [(date(2011, 1, 3), 3, "broken,line")]


def test_a_dump_without_a_folder_says_how_to_name_one(home, monkeypatch):
    monkeypatch.delenv("EMPORIUM_DATA", raising=False)
    settings.cache_clear()
    with pytest.raises(SourceError, match="--data FOLDER or EMPORIUM_DATA"):
        list(extract(load_source("olist"), DAY, DAY))


class Listed(Connector):
    """Two batches whose rows say no line; the first begins with a row of the day before."""

    name = "files"

    def read(self, first, last):
        for begin, text in ((first - timedelta(days=1), "{one"), (first, "{two a@b.org")):
            yield Batch(
                "things",
                [{"id": "a"}, {"id": "b"}, {}],
                file="f",
                partition_on=np.array([begin, first, first], "datetime64[D]"),
                errors=[None, None, "no JSON"],
                broken={2: text},
            )


def test_a_line_that_is_no_row_has_the_number_that_bronze_gives_it(home):
    things = {"key": ["id"], "columns": {"id": {"required": True}}}
    source = {"source": "s", "type": "stream", "marketplace": "s", "currency": "EUR", "connection": {"folder": "s"}}
    reader = Listed.__new__(Listed)
    reader.source = Source.model_validate({**source, "entities": {"things": things}})
    (found,) = extracts(reader, DAY, DAY)
    rows = found.rows.select(["id", "_line", "_error"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("b", 1, None), (None, 2, "no JSON"), ("a", 3, None), ("b", 4, None), (None, 5, "no JSON"),
    ]  # fmt: skip
    assert [(one.partition_on, one.line, one.text) for one in found.broken] == [
        (DAY, 2, "{one"),
        (DAY, 5, "{two ***@***"),
    ]
