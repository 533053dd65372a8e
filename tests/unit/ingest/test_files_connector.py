"""Daily files: where they are looked for, what is refused, when their rows became known."""

import gzip
import hashlib
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.ingest.connectors import SourceError, connector
from include.ingest.extract import extract, span
from include.ingest.sources import Source

DAY = date(2025, 3, 2)
NEXT = date(2025, 3, 3)


def _source(connection=None, read=None, time_zone="UTC", **entity):
    orders = {
        "read": read or {},
        "key": ["order_id"],
        "cursor": "updated_at",
        "columns": {
            "order_id": {"required": True},
            "total": {"type": "numeric(18,4)"},
            "updated_at": {"type": "timestamptz"},
        },
        **entity,
    }
    return Source.model_validate(
        {
            "source": "corner",
            "type": "files",
            "marketplace": "corner",
            "currency": "EUR",
            "time_zone": time_zone,
            "connection": {"folder": "in"} | (connection or {}),
            "entities": {"orders": orders},
        }
    )


def _put(home, name, *rows, header="order_id,total,updated_at"):
    path = home / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "\n".join([header, *rows, ""]).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _ids(source, first=DAY, last=None):
    (found,) = extract(source, first, last or first)
    return found.rows["order_id"].to_pylist()


@pytest.mark.parametrize(
    ("connection", "read", "names"),
    [
        ({}, {}, ["2025-03-02/orders.csv", "2025-03-03/orders.csv"]),
        ({}, {"file": "sales"}, ["2025-03-02/sales.csv.gz", "2025-03-03/sales.csv"]),
        ({}, {"file": "{day}"}, ["2025-03-02.csv", "2025-03-03.csv.gz"]),
        ({"day_format": "%Y%m%d"}, {"file": "sales_{day}_*"}, ["sales_20250302_090000.csv", "sales_20250303_x.csv"]),
        (
            {"folder": "in/{day}/x", "day_format": "%Y/%m/%d"},
            {},
            ["2025/03/02/x/orders.csv", "2025/03/03/x/orders.csv"],
        ),
        ({"folder": "in/d={day}", "format": "csv"}, {}, ["d=2025-03-02/orders.csv", "d=2025-03-03/orders.csv"]),
    ],
)
def test_the_day_is_in_the_folder_or_in_the_name(home, connection, read, names):
    source = _source(connection, read)
    _put(home, names[0], "a,1,")
    _put(home, names[1], "b,1,")
    assert _ids(source) == ["a"]
    assert _ids(source, NEXT) == ["b"]
    assert _ids(source, DAY, NEXT) == ["a", "b"]
    assert span(source) == (DAY, None)


def test_part_files_are_read_together_and_nothing_that_only_looks_alike(home):
    parts = {"orders.csv": "a", "orders.1.csv": "b", "orders.part-2.csv.gz": "c"}
    for name, row in parts.items():
        _put(home, f"{DAY}/{name}", f"{row},1,")
    for name in (
        "orders_items.csv",
        "orders.csv.tmp",
        "_orders.csv",
        ".orders.csv",
        "orders.csv.whole",
        "orders.jsonl",
    ):
        _put(home, f"{DAY}/{name}", "no,1,")
    (found,) = extract(_source(), DAY, DAY)
    assert sorted(found.rows["order_id"].to_pylist()) == ["a", "b", "c"]
    assert set(found.rows["_file"].to_pylist()) == {f"in/{DAY}/{name}" for name in parts}
    assert found.rows["_line"].to_pylist() == [2, 2, 2]
    (found,) = extract(_source(read={"file": "*orders"}), DAY, DAY)
    assert sorted(found.rows["order_id"].to_pylist()) == ["a", "b", "c"], "an unfinished file is not read"


def test_a_file_that_is_there_plain_and_compressed_is_refused(home):
    _put(home, f"{DAY}/orders.csv", "a,1,")
    _put(home, f"{DAY}/orders.csv.gz", "a,1,")
    with pytest.raises(SourceError, match=r"orders\.csv and orders\.csv\.gz are the same file: keep one"):
        _ids(_source())


def test_a_day_that_was_not_delivered_is_refused_unless_its_file_is_optional(home):
    with pytest.raises(SourceError, match=r"The folder .*2025-03-02 is missing\. corner has not delivered 2025-03-02"):
        _ids(_source(read={"optional": True}))
    _put(home, f"{DAY}/other.csv", "a,1,")
    assert _ids(_source(read={"optional": True})) == []
    with pytest.raises(SourceError, match=r"orders\.csv \(or \.gz, \.zst\) is missing"):
        _ids(_source())


def test_jsonl_and_parquet_are_read_the_same(home):
    folder = home / "in" / str(DAY)
    folder.mkdir(parents=True)
    (folder / "orders.jsonl").write_text('{"order_id": "a", "total": 1.50, "updated_at": "2025-03-02T10:00:00Z"}\n')
    table = pa.table({"order_id": ["a"], "total": [1.5], "updated_at": [datetime(2025, 3, 2, 10, tzinfo=UTC)]})
    pq.write_table(table, folder / "orders.parquet")
    found = {}
    for kind in ("jsonl", "parquet"):
        (one,) = extract(_source({"format": kind}), DAY, DAY)
        found[kind] = one.rows.select(["order_id", "known_at", "_line"]).to_pylist()
    assert found["jsonl"] == found["parquet"] == [
        {"order_id": "a", "known_at": datetime(2025, 3, 2, 10, tzinfo=UTC), "_line": 1}
    ]  # fmt: skip


def test_a_late_row_lands_in_the_day_that_brought_it_and_is_known_then_however_late(home):
    late = ["2025-03-02T11:00:00Z", "2025-02-27T09:00:00Z", "1998-01-01T00:00:00Z", "2025-03-09T11:00:00Z", "soon", ""]
    _put(home, f"{DAY}/orders.csv", *(f"o{at},1,{moment}" for at, moment in enumerate(late)))
    (found,) = extract(_source(), DAY, DAY)
    start, end = datetime(2025, 3, 2, tzinfo=UTC), datetime(2025, 3, 2, 23, 59, 59, 999999, tzinfo=UTC)
    assert found.rows["partition_on"].to_pylist() == [DAY] * 6
    assert found.rows["known_at"].to_pylist() == [start.replace(hour=11), start, start, end, start, start]
    assert found.rows["updated_at"].to_pylist() == [*late[:-1], None], "what the row says stays as it is"


def test_a_cursor_without_a_zone_is_in_the_sources_zone(home):
    _put(home, f"{DAY}/orders.csv", "a,1,2025-03-02 00:30:00", "b,1,2025-03-02 23:00:00")
    (found,) = extract(_source(time_zone="Europe/Berlin"), DAY, DAY)
    assert found.rows["known_at"].to_pylist() == [
        datetime(2025, 3, 2, tzinfo=UTC),
        datetime(2025, 3, 2, 22, tzinfo=UTC),
    ]


def test_a_column_is_made_of_others(home):
    source = _source(
        {"delimiter": ";"},
        {"derive": {"order_id": "{Shop}-{No:06}", "updated_at": "{y}-{m:02}-{d:02}"}},
        ignore=["rest"],
    )
    _put(home, f"{DAY}/orders.csv", "2025;3;2;9;42;x;1.5", "2025;3;;9;43;x;1.5", header="y;m;d;Shop;No;rest;total")
    (found,) = extract(source, DAY, DAY)
    assert found.rows["order_id"].to_pylist() == ["9-000042", "9-000043"]
    assert found.rows["updated_at"].to_pylist() == ["2025-03-02", None]
    assert found.unnamed == (), "what others are made of is not news"
    _put(home, f"{DAY}/orders.csv", "2025;3;2;9;x;1.5", header="y;m;d;Shop;rest;total")
    with pytest.raises(SourceError, match=r"orders\.csv lacks the column No, of which another is to be made"):
        list(extract(source, DAY, DAY))


def test_columns_that_nobody_named_are_reported_and_read_where_the_policy_needs_them(home):
    _put(home, f"{DAY}/orders.csv", "a,1,,x,y", header="order_id,total,updated_at,gift,known")
    (found,) = extract(_source(ignore=["known"]), DAY, DAY)
    assert (found.unnamed, found.extra) == (("gift",), None)
    (found,) = extract(_source(ignore=["known"], schema_policy="evolve"), DAY, DAY)
    assert found.unnamed == ("gift",)
    assert found.extra.to_pydict() == {"gift": ["x"]}


# The manifest

MANIFEST = {"manifest": "SHA256SUMS"}


def _listed(home, *paths, name="SHA256SUMS", digest=None):
    lines = [f"{digest or hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in paths]
    (home / "in" / str(DAY) / name).write_text("\n".join(lines) + "\n")


def test_a_day_with_a_whole_manifest_is_read(home):
    paths = [_put(home, f"{DAY}/orders.csv", "a,1,"), _put(home, f"{DAY}/orders.1.csv.gz", "b,1,")]
    _listed(home, *paths)
    assert sorted(_ids(_source(MANIFEST))) == ["a", "b"]


def _unlisted(home, one, two):
    _listed(home, one)


def _missing(home, one, two):
    two.unlink()


def _longer(home, one, two):
    two.write_bytes(two.read_bytes() + b"c,1,\n")


def _cut_off(home, one, two):
    two.write_bytes(two.read_bytes()[:-3])


def _without_manifest(home, one, two):
    (one.parent / "SHA256SUMS").unlink()


def _no_manifest(home, one, two):
    (one.parent / "SHA256SUMS").write_text("soon\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_unlisted, r"orders\.1\.csv is not listed in SHA256SUMS \(file_is_listed\)"),
        (_missing, r"orders\.1\.csv is listed in SHA256SUMS and missing \(listed_file_is_there\)"),
        (_longer, r"orders\.1\.csv has the checksum .* \(checksum_matches\)"),
        (_cut_off, r"orders\.1\.csv has the checksum .* \(checksum_matches\)"),
        (_without_manifest, r"SHA256SUMS is missing .*\(manifest_is_there\)"),
        (_no_manifest, r"SHA256SUMS:1 is not a line .*\(manifest_is_whole\)"),
    ],
)
def test_nothing_of_a_day_is_read_whose_manifest_and_files_differ(home, spoil, said):
    one, two = _put(home, f"{DAY}/orders.csv", "a,1,"), _put(home, f"{DAY}/orders.1.csv", "b,1,")
    _listed(home, one, two)
    spoil(home, one, two)
    with connector(_source(MANIFEST)) as reader:
        batches = reader.read(DAY, DAY)
        with pytest.raises(SourceError, match=said):
            next(batches)


# The YAML


@pytest.mark.parametrize(
    ("connection", "read", "said"),
    [
        ({"day_format": "%Y-%m"}, {}, r"connection\.day_format: '%Y-%m' must have %Y, %m and %d"),
        ({"delimiter": ";;"}, {}, r"connection\.delimiter"),
        ({"encoding": "utf-9"}, {}, r"connection\.encoding: there is no encoding 'utf-9'"),
        ({}, {"file": "a/b"}, r"entities\.orders\.read\.file: 'a/b' is a path"),
        ({}, {"derive": {"x": "no braces"}}, r"entities\.orders\.read\.derive: x: 'no braces' names no column"),
        ({}, {"derive": {"x": "{a:>9}"}}, r"read\.derive: x: '>9' is no width"),
        ({}, {"derive": {"x": "{a"}}, r"read\.derive: x: '{a'"),
        (MANIFEST, {"file": "{day}"}, r"connection\.manifest must have \{day\} in its name"),
    ],
)
def test_a_mistake_in_the_yaml_is_said_with_its_place(connection, read, said):
    with pytest.raises(ValueError, match=said):
        _source(connection, read)


def test_discover_shows_the_columns_of_the_newest_day(home):
    _put(home, f"{DAY}/orders.csv", "a,1,")
    _put(home, f"{NEXT}/orders.csv", "a,1.5,2025-03-03T10:00:00Z,x", header="order_id,total,updated_at,gift")
    with connector(_source()) as reader:
        found = reader.discover()
    assert {one.name: one.type for one in found["orders"]} == {
        "order_id": "text",
        "total": "numeric(18,4)",
        "updated_at": "timestamptz",
        "gift": "text",
    }


def test_a_file_whose_checksum_is_right_may_end_without_a_line_end(home):
    path = _put(home, "2025-03-02/orders.csv", "1,2,2025-03-02 10:00:00")
    path.write_bytes(path.read_bytes().rstrip())
    with pytest.raises(SourceError, match="file_is_complete"):
        _ids(_source())
    assert _ids(_source({"open_end": True})) == ["1"]
    (path.parent / "SHA256SUMS").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  orders.csv\n")
    assert _ids(_source({"manifest": "SHA256SUMS"})) == ["1"]


@pytest.mark.parametrize("file", ["{}/orders.csv", "orders-{}.csv"])
def test_a_long_history_is_read_in_ranges_of_days_that_fit_in_memory(home, monkeypatch, file):
    for day, n in ((1, 3), (2, 3), (3, 30), (5, 3)):
        _put(home, file.format(f"2025-03-0{day}"), *["1,2,2025-03-02 10:00:00"] * n)
    monkeypatch.setattr("include.ingest.connectors.files.CHUNK_BYTES", 250)
    with connector(_source(read={"file": file.removesuffix(".csv").split("/")[-1].format("{day}")})) as reader:
        found = [(first.day, last.day) for first, last in reader.chunks(date(2025, 3, 1), date(2025, 3, 6))]
    assert found == [(1, 2), (3, 4), (5, 6)]
