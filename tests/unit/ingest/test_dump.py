"""A history dump: what it is made of, and what it says of itself."""

from datetime import date

import pytest

from include.ingest.connectors import SourceError, connector
from include.ingest.extract import extract, span
from include.ingest.replay import EVENTS
from include.ingest.sources import Source

pytestmark = pytest.mark.usefixtures("home")

FILE = "year;month;day;Till;No;Amount\n2025;3;2;1;7;1.5\n2025;11;30;1;8;2\n2025;3;2;1;7;1.5\n2025;3;2;2;;1\n"


def _source(time_zone="UTC", **entity):
    sales = {
        "read": {
            "file": "sales",
            "derive": {"sold_on": "{year}-{month:02}-{day:02}"},
            "known": {"by": "column", "column": "sold_on"},
            "numbered_within": "sold_on",
        },
        "key": ["sold_on", "line_no"],
        "columns": {
            "sold_on": {"type": "date", "required": True},
            "line_no": {"type": "integer", "required": True},
            "till": {"from": "Till"},
            "receipt": {"from": "No"},
            "amount": {"from": "Amount", "type": "numeric(18,4)"},
        },
        **entity,
    }
    return Source.model_validate(
        {
            "source": "till",
            "type": "dump",
            "marketplace": "till",
            "currency": "EUR",
            "time_zone": time_zone,
            "connection": {"delimiter": ";"},
            "entities": {"sales": sales},
        }
    )


def test_a_row_is_known_by_a_column_that_is_made_of_others(tmp_path):
    (tmp_path / "sales.csv").write_text(FILE)
    source = _source()
    assert span(source, tmp_path) == (date(2025, 3, 2), date(2025, 11, 30))
    (found,) = extract(source, date(2025, 3, 2), date(2025, 3, 2), tmp_path)
    assert found.rows.select(["sold_on", "line_no", "receipt", "_line"]).to_pylist() == [
        {"sold_on": "2025-03-02", "line_no": "1", "receipt": "7", "_line": 2},
        {"sold_on": "2025-03-02", "line_no": "1", "receipt": "7", "_line": 4},
        {"sold_on": "2025-03-02", "line_no": "2", "receipt": None, "_line": 5},
    ]
    assert found.unnamed == ()


def test_times_of_a_dump_are_in_its_zone(tmp_path):
    (tmp_path / "sales.csv").write_text("at;no\n2025-03-02 00:30:00;1\n2025-03-02 02:30:00;2\n")
    source = _source(
        "Europe/Berlin",
        read={"file": "sales", "known": {"by": "column", "column": "at"}},
        key=["no"],
        columns={"no": {"required": True}, "at": {"type": "timestamptz"}},
    )
    (found,) = extract(source, date(2025, 3, 1), date(2025, 3, 1), tmp_path)
    assert found.rows["no"].to_pylist() == ["1"]
    assert str(found.rows["known_at"][0].as_py()) == "2025-03-01 23:30:00+00:00"


def test_discover_shows_made_columns_and_not_what_they_are_made_of(tmp_path):
    (tmp_path / "sales.csv").write_text(FILE)
    with connector(_source(), tmp_path) as reader:
        found = {one.name: one.type for one in reader.discover()["sales"]}
    of_file = {"Till": "integer", "No": "integer", "Amount": "numeric(18,4)"}
    assert found == {**of_file, "sold_on": "date", "line_no": "integer"}


def test_a_dump_that_is_missing_or_cut_off_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"sales\.csv \(or \.gz, \.zst\) is missing\. It belongs to the source till"):
        span(_source(), tmp_path)
    (tmp_path / "sales.csv").write_text(FILE + "2025;3")
    with pytest.raises(SourceError, match=r"sales\.csv is cut off .*line 6 has no end and is no row: 2 fields"):
        list(extract(_source(), date(2025, 3, 2), date(2025, 3, 2), tmp_path))
    with pytest.raises(SourceError, match="--data FOLDER or EMPORIUM_DATA"):
        span(_source())


def test_the_life_of_an_order_is_told_by_the_clock_of_the_dump(tmp_path):
    (tmp_path / "orders.csv").write_text(
        "order_id;order_status;order_purchase_timestamp;order_approved_at;order_delivered_carrier_date;"
        "order_delivered_customer_date\n1;delivered;2025-03-02 00:30:00;2025-03-02 00:40:00;2025-03-03;\n"
    )
    times = {"type": "timestamptz"}
    columns = {"order_id": {"required": True}, "order_status": {}} | dict.fromkeys(EVENTS, times)
    source = _source(
        "Europe/Berlin",
        read={"file": "orders", "known": {"by": "order_lifecycle"}},
        key=["order_id"],
        columns=columns,
    )
    assert span(source, tmp_path) == (date(2025, 3, 1), date(2025, 3, 2))
    (found,) = extract(source, date(2025, 3, 1), date(2025, 3, 4), tmp_path)
    names = ["partition_on", "order_status", "order_delivered_carrier_date"]
    assert [tuple(row.values()) for row in found.rows.select(names).to_pylist()] == [
        (date(2025, 3, 1), "approved", None),
        (date(2025, 3, 2), "shipped", "2025-03-02 23:00:00.000000Z"),
    ]
