"""Reading files: a broken line is set aside with its number and text, every other line is read."""

import csv
import gzip
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.ingest import files
from include.ingest.connectors import SourceError
from include.ingest.files import Dialect, Wanted, find, read_csv, read_jsonl, read_parquet

WANTED = Wanted(["Id", "Name"])


def _csv(tmp_path, text, wanted=WANTED, dialect=Dialect()):
    path = tmp_path / "x.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csv(path, wanted, dialect)


def _jsonl(tmp_path, *lines, wanted=WANTED):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return read_jsonl(path, wanted)


def _columns(rows):
    return rows.table.to_pydict()


# CSV


def test_only_wanted_columns_are_read_and_empty_is_null(tmp_path):
    rows = _csv(tmp_path, 'Name,Secret,Id\nann,s,1\n,s,2\n"a ""b"",\nc",s,3\n')
    assert _columns(rows) == {"Id": ["1", "2", "3"], "Name": ["ann", None, 'a "b",\nc']}
    assert rows.line.tolist() == [2, 3, 4]
    assert rows.broken == {}
    assert rows.columns == ("Name", "Secret", "Id")


def test_every_other_column_is_kept_where_the_policy_wants_its_values(tmp_path):
    rows = _csv(tmp_path, "Name,Secret,Id,New,\nann,s,1,x,\n", Wanted(["Id", "Name"], {"Secret"}))
    assert _columns(rows) == {"Name": ["ann"], "Id": ["1"], "New": ["x"]}
    assert rows.columns == ("Name", "Secret", "Id", "New")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("2", "1 fields instead of 2"),
        ("2,b,c", "3 fields instead of 2"),
        ('2,"b', "not CSV"),
        ('"2,b', "not CSV"),
        ('2,"b"c', "not CSV"),
        ("2,b\0", "a NUL character, in the column Name"),
        ("2,Ren\udce9", "not UTF-8 text, in the column Name"),
        ("\udce9,b", "not UTF-8 text, in the column Id"),
        ("2,b\rc", "not CSV"),
        (f"2,{'x' * 200_000}", "field larger than field limit"),
    ],
)
def test_a_broken_line_does_not_take_its_neighbours_with_it(tmp_path, bad, problem):
    text = f"Id,Name\n1,a\n{bad}\n3,c\n4,d\n".encode(errors="surrogateescape")
    rows = _csv(tmp_path, text)
    assert _columns(rows)["Id"] == ["1", None, "3", "4"]
    assert rows.line.tolist() == [2, 3, 4, 5]
    assert problem in rows.errors[1]
    assert rows.errors[0] is rows.errors[2] is rows.errors[3] is None
    assert list(rows.broken) == [1]
    assert rows.broken[1].startswith(bad[:1].replace("\udce9", "�"))


def test_a_line_is_set_aside_for_a_column_that_nobody_reads_too(tmp_path):
    rows = _csv(tmp_path, b"Id,Secret\n1,a\n2,\xff\n", Wanted(["Id"]))
    assert _columns(rows) == {"Id": ["1", None]}
    assert rows.errors[1] == "not UTF-8 text, in the column Secret"


def test_a_quoted_field_whose_second_line_is_no_text_is_set_aside(tmp_path):
    rows = _csv(tmp_path, b'Id,Name\n1,"a\n\xff"\n3,c\n')
    assert _columns(rows)["Id"][-1] == "3"
    assert _columns(rows)["Name"] == [None, None, "c"]
    assert rows.errors[0] == "not UTF-8 text, in the column Name"


LINES = ["1,a", '2,"b', "3", '"4', '5,"x ""y"""', "6,b,c", '7,"', '8,a"b', "", '9,"a"b', '"10","é"', "11,\r", '12,""']


@given(st.lists(st.sampled_from([line for line in LINES if line]), max_size=12))
@settings(deadline=None)
@example(['"4', '7,"'])
def test_every_line_is_a_row_or_is_broken(tmp_path_factory, body):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text("Id,Name\n" + "\n".join(body) + "\n", newline="")
    rows = read_csv(path, WANTED)
    inside = sum((value or "").count("\n") for values in _columns(rows).values() for value in values)
    taken = rows.line.tolist()
    assert len(set(taken)) == len(taken)
    assert len(taken) + inside == len(body)
    assert all((rows.errors[at] is None) == (at not in rows.broken) for at in range(len(taken)))


bodies = st.lists(
    st.sampled_from(LINES) | st.text(st.sampled_from('ab";,\r\0\ufeffé '), max_size=8), min_size=1, max_size=12
)


@given(bodies, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sampled_from(['"', "'", ""]), st.integers(4, 40))
@settings(deadline=None)
@example(["1,a", "2,b", "\ufeff3,c"], "\n", True, '"', 10)
@example(["1,a", "", "2,b"], "\r\n", True, '"', 4)
@example(["1,a\r2,b", "", "3,c"], "\n", True, '"', 40)
@example(['1,"a"b', "2,c"], "\n", True, '"', 40)
def test_all_at_once_and_line_by_line_are_the_same(tmp_path_factory, body, end, is_ended, quote, size):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(("Id,Name" + end + end.join(body) + (end if is_ended else "")).encode())

    def read():
        try:
            rows = read_csv(path, WANTED, Dialect(quote=quote))
        except SourceError as error:
            return str(error)
        return _columns(rows), rows.line.tolist(), rows.errors, rows.broken, rows.columns

    with pytest.MonkeyPatch.context() as patch:
        at_once = read()
        patch.setattr(files, "PIECE", size)
        in_pieces = read()
        patch.setattr(files._Csv, "_at_once", lambda self, data: None)
        assert at_once == in_pieces == read()


def test_a_clean_file_is_read_at_once(tmp_path, monkeypatch):
    def line_by_line(*_):
        raise AssertionError("read line by line")

    monkeypatch.setattr(files._Csv, "_one_by_one", line_by_line)
    rows = _csv(tmp_path, 'Id,Name\r\n1,"a, ""b"""\r\n2,é\r\n')
    assert _columns(rows) == {"Id": ["1", "2"], "Name": ['a, "b"', "é"]}
    assert rows.line.tolist() == [2, 3]


@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))] * 2), max_size=8),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)
@settings(deadline=None)
def test_what_a_writer_of_csv_wrote_comes_back(tmp_path_factory, rows, delimiter, encoding):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("Id", "Name"), *rows])
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    found = read_csv(path, WANTED, Dialect(delimiter, encoding=encoding))
    assert not found.broken
    assert list(zip(*_columns(found).values(), strict=True)) == [(one or None, two or None) for one, two in rows]


def test_another_encoding_is_read_and_what_it_cannot_say_is_set_aside(tmp_path):
    text = "Id;Name\n1;Gr\xfc\xdfe\n".encode("cp1252") + b"2;\x81\n3;\x80\n"
    rows = _csv(tmp_path, text, dialect=Dialect(";", encoding="cp1252"))
    assert _columns(rows)["Name"] == ["Grüße", None, "€"]
    assert rows.errors[1] == "not CP1252 text, in the column Name"


def test_a_header_without_the_wanted_columns_is_one_sentence(tmp_path):
    with pytest.raises(
        SourceError, match=r"x\.csv lacks the columns Id, Name; it has 2 columns\. Is the header missing"
    ):
        _csv(tmp_path, "Nr,Nom\n1,a\n")
    with pytest.raises(SourceError, match="no header"):
        _csv(tmp_path, "")
    with pytest.raises(SourceError, match="has the column Id more than once"):
        _csv(tmp_path, "Id,Id,Name\n1,2,a\n")


# JSON lines


def test_jsonl_takes_objects_and_sets_the_rest_aside(tmp_path):
    lines = ['{"Id": 1, "Name": "a", "Secret": 2}', '{"Id": 2', "[3]", "", '{"Name": null, "Id": {"x": 1.5}}']
    rows = _jsonl(tmp_path, *lines)
    assert _columns(rows) == {"Id": ["1", None, None, '{"x": 1.5}'], "Name": ["a", None, None, None]}
    assert rows.line.tolist() == [1, 2, 3, 5]
    assert rows.broken == {1: '{"Id": 2', 2: "[3]"}
    assert rows.errors[2] == "not a JSON object"
    assert rows.columns == ("Id", "Name", "Secret")


def test_a_number_in_json_keeps_every_digit(tmp_path):
    digits = "9" * 5000
    rows = _jsonl(tmp_path, f'{{"Id": {digits}, "Name": 0.10}}', '{"Id": NaN, "Name": true}', '{"Id": -1e400}')
    assert _columns(rows) == {"Id": [digits, "NaN", "-1e400"], "Name": ["0.10", "true", None]}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b'{"Id": 2, "Name": "Ren\xe9"}', "not UTF-8 text"),
        (b'{"Id": 2, "Name": "a\\u0000b"}', "a NUL character, in the column Name"),
        (b'{"Id": 2, "Name": "a\0b"}', "not JSON"),
        (b'{"Id": 2, "Name": "\\ud800"}', "half a character (a lone surrogate), in the column Name"),
        (b"[" * 100_000, "not JSON: nested too deeply"),
        (b'{"Id": {"x": ' + b"9" * 5000 + b"}}", "not JSON: Exceeds the limit"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_a_poisoned_line_of_json_does_not_take_its_neighbours_with_it(tmp_path, bad, problem):
    rows = _jsonl(tmp_path, '{"Id": 1}', bad, '{"Id": 3}')
    assert _columns(rows)["Id"] == ["1", None, "3"]
    assert rows.errors[1].startswith(problem)
    assert list(rows.broken) == [1]
    rows.broken[1].encode()
    assert "\0" not in rows.broken[1]


def test_a_column_that_appears_late_in_a_file_is_there_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE", 16)
    rows = _jsonl(tmp_path, '{"Id": 1}', '{"Id": 2, "New": "x"}', '{"Id": 3}', wanted=Wanted(["Id"], ()))
    assert _columns(rows) == {"Id": ["1", "2", "3"], "New": [None, "x", None]}
    assert rows.line.tolist() == [1, 2, 3]


# Parquet


def test_parquet_values_come_as_text_that_ingest_reads(tmp_path):
    path = tmp_path / "x.parquet"
    moment = datetime(2025, 3, 2, 11, 30, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array([1, None], pa.int64()),
            "price": pa.array([Decimal("12.3400"), None], pa.decimal128(18, 4)),
            "share": pa.array([1e-7, float("nan")]),
            "at": pa.array([moment, None], pa.timestamp("ns", "UTC")),
            "local": pa.array([moment, datetime(9999, 12, 31, tzinfo=UTC)]).cast(pa.timestamp("us")),
            "on": pa.array([date(2025, 3, 2), None]),
            "is_new": pa.array([True, False]),
            "name": pa.array(["é", ""]).dictionary_encode(),
            "tags": pa.array([["a", "b"], None]),
            "nothing": pa.nulls(2),
        }
    )
    pq.write_table(table, path)
    rows = read_parquet(path, Wanted([], {"name2"}))
    assert _columns(rows) == {
        "id": ["1", None],
        "price": ["12.3400", None],
        "share": ["0.0000001", "nan"],
        "at": ["2025-03-02 11:30:00.000000Z", None],
        "local": ["2025-03-02 11:30:00.000000", "9999-12-31 00:00:00.000000"],
        "on": ["2025-03-02", None],
        "is_new": ["true", "false"],
        "name": ["é", None],
        "tags": ['["a", "b"]', None],
        "nothing": [None, None],
    }
    assert rows.line.tolist() == [1, 2]


def test_a_parquet_row_that_is_no_text_is_set_aside(tmp_path):
    path = tmp_path / "x.parquet"
    bad = pa.array([b"a", b"Ren\xe9", b"a\0b", b"d"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 4, bad.buffers())
    pq.write_table(pa.table({"Id": ["1", "2", "3", "4"], "Name": texts}), path)
    rows = read_parquet(path, WANTED)
    assert _columns(rows) == {"Id": ["1", None, None, "4"], "Name": ["a", None, None, "d"]}
    assert rows.errors[1:3] == ["not UTF-8 text, in the column Name", "a NUL character, in the column Name"]
    assert json.loads(rows.broken[1]) == {"Id": "2", "Name": "Ren�"}
    assert "\\u0000" not in rows.broken[2]


# Files that are not whole


PACKED = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("suffix", PACKED)
def test_compressed_files_read_the_same(tmp_path, suffix):
    (tmp_path / f"x.csv{suffix}").write_bytes(PACKED[suffix](b"Id,Name\n1,a\n"))
    path = find(tmp_path, "x.csv", hint="")
    assert _columns(read_csv(path, WANTED)) == {"Id": ["1"], "Name": ["a"]}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_of_two_compressed_streams_is_read_to_its_end(tmp_path, suffix):
    path = tmp_path / f"x.csv{suffix}"
    path.write_bytes(PACKED[suffix](b"Id,Name\n1,a\n") + PACKED[suffix](b"2,b\n"))
    assert _columns(read_csv(path, WANTED))["Id"] == ["1", "2"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("cut", [1, 5, 20, 60, 10**6])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, suffix, cut):
    data = PACKED[suffix](b"Id,Name\n" + b"".join(b"%d,a%d\n" % (n, n * n) for n in range(5000)))
    path = tmp_path / f"x.csv{suffix}"
    path.write_bytes(data[:-cut])
    with pytest.raises(SourceError, match=r"x\.csv\..* is cut off or damaged \(file_is_complete\)"):
        read_csv(path, WANTED)


def test_a_damaged_compressed_file_is_refused(tmp_path):
    path = tmp_path / "x.csv.gz"
    data = bytearray(gzip.compress(b"Id,Name\n" + b"1,a\n" * 5000))
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"cut off or damaged .*incorrect data check"):
        read_csv(path, WANTED)


@pytest.mark.parametrize("end", ["2", '2,"b', "2,b,c", '"2'])
def test_a_csv_file_whose_last_line_has_no_end_and_is_no_row_is_refused(tmp_path, end):
    with pytest.raises(SourceError, match=r"x\.csv is cut off .*has no (line )?end"):
        _csv(tmp_path, f"Id,Name\n1,a\n{end}")
    with pytest.raises(SourceError, match=r"x\.csv is cut off .*line 3 has no end and is no row"):
        _csv(tmp_path, f"Id,Name\n1,a\n{end}", dialect=Dialect(open_end=True))
    # The same line with an end is one broken row.
    assert list(_csv(tmp_path, f"Id,Name\n1,a\n{end}\n").broken) == [1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_csv_file_that_is_cut_off_in_its_last_value_is_refused_unless_the_source_writes_so(tmp_path, encoding):
    cut = "Id,Name\n1,12.25\n2,13.5".encode(encoding)
    with pytest.raises(SourceError, match=r"x\.csv is cut off .*\(file_is_complete\): its last line has no line end"):
        _csv(tmp_path, cut, dialect=Dialect(encoding=encoding))
    assert _columns(_csv(tmp_path, cut, dialect=Dialect(encoding=encoding, open_end=True)))["Name"] == ["12.25", "13.5"]
    # A format that says where it ends needs no line end, and a header alone has no other line to compare it with.
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(cut))
    assert len(read_csv(tmp_path / "x.csv.gz", WANTED, Dialect(encoding=encoding)).table) == 2
    assert len(_csv(tmp_path, "Id,Name").table) == 0


def test_a_row_in_the_place_of_the_header_is_not_repeated(tmp_path):
    with pytest.raises(SourceError, match=r"lacks the columns Id, Name; it has 3 columns") as error:
        _csv(tmp_path, "17,Ann,ann@example.org\n")
    assert not any(one in str(error.value) for one in ("17", "Ann", "ann@"))
    assert "it has Id, total." in files.lacks(["No"], ["Id", "total"], ["Id", "No"])
    assert "it has 2 columns" in files.lacks(["No"], ["Id", "ann@example.org"], ["Id", "No"])
    with pytest.raises(SourceError, match=r"the column number 2 more than once"):
        _csv(tmp_path, "17,Ann,Ann\n", Wanted(["Id"], ()))


def test_a_jsonl_file_whose_last_line_has_no_end_and_is_no_row_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"Id": 1}\n{"Id": 2, "Na')
    with pytest.raises(SourceError, match=r"x\.jsonl is cut off .*line 2 has no end and is no row"):
        read_jsonl(path, WANTED)
    path.write_text('{"Id": 1}\n{"Id": 2}')
    assert _columns(read_jsonl(path, WANTED))["Id"] == ["1", "2"]


def test_a_parquet_file_without_a_footer_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"Id": ["1"] * 1000, "Name": ["a"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SourceError, match=r"x\.parquet is cut off or damaged"):
        read_parquet(path, WANTED)


def test_a_missing_file_or_folder_is_one_sentence(tmp_path):
    with pytest.raises(SourceError, match=r"x\.csv \(or \.gz, \.zst\) is missing\. Ask the shop\."):
        find(tmp_path, "x.csv", hint="Ask the shop.")
    with pytest.raises(SourceError, match=r"The folder .*nowhere is missing"):
        find(tmp_path / "nowhere", "x.csv", hint="Ask the shop.")
