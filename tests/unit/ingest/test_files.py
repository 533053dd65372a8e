"""Reading files: a broken line is set aside with its number and text, every other line is read."""

import gzip

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from include.ingest.files import find, read_csv, read_jsonl

WANTED = {"id": "Id", "name": "Name"}


def _csv(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csv(path, WANTED, "x.csv")


def test_only_wanted_columns_are_read_and_empty_is_null(tmp_path):
    lines = _csv(tmp_path, 'Name,Secret,Id\nann,s,1\n,s,2\n"a ""b"",\nc",s,3\n')
    assert lines.columns == {"id": ["1", "2", "3"], "name": ["ann", None, 'a "b",\nc']}
    assert lines.numbers == [2, 3, 4]
    assert lines.broken == {}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("2", "1 fields instead of 2"),
        ("2,b,c", "3 fields instead of 2"),
        ('2,"b', "not CSV"),
        ('"2,b', "not CSV"),
        ('2,"b"c', "not CSV"),
        ("2,b\0", "not UTF-8"),
        ("2,Ren\udce9", "not UTF-8"),
    ],
)
def test_a_broken_line_does_not_take_its_neighbours_with_it(tmp_path, bad, problem):
    text = f"Id,Name\n1,a\n{bad}\n3,c\n4,d\n".encode(errors="surrogateescape")
    lines = _csv(tmp_path, text)
    assert lines.columns["id"] == ["1", None, "3", "4"]
    assert lines.numbers == [2, 3, 4, 5]
    assert problem in lines.errors[1]
    assert lines.errors[0] is lines.errors[2] is lines.errors[3] is None
    assert list(lines.broken) == [1]
    assert lines.broken[1].startswith(bad[:3])


@given(st.lists(st.sampled_from(["1,a", '2,"b', "3", '"4', '5,"x ""y"""', "6,b,c", '7,"', '8,a"b']), max_size=12))
def test_every_line_is_a_row_or_is_broken(tmp_path_factory, body):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text("Id,Name\n" + "\n".join(body) + "\n")
    lines = read_csv(path, WANTED, "x.csv")
    taken = set(lines.numbers)
    inside = sum((name or "").count("\n") for name in (*lines.columns["name"], *lines.columns["id"]))
    assert len(taken) == len(lines.numbers)
    assert len(taken) + inside == len(body)
    assert all((lines.errors[at] is None) == (at not in lines.broken) for at in range(len(lines.numbers)))


def test_a_header_without_a_wanted_column_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"x\.csv lacks the column Name; its header is: Id, Nom"):
        _csv(tmp_path, "Id,Nom\n1,a\n")
    with pytest.raises(ValueError, match="no header"):
        _csv(tmp_path, "")


def test_jsonl_takes_objects_and_sets_the_rest_aside(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    rows = ['{"Id": 1, "Name": "a", "Secret": 2}', '{"Id": 2', "[3]", "", '{"Name": null, "Id": {"x": 1.5}}']
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    lines = read_jsonl(path, WANTED, "x")
    assert lines.columns == {"id": ["1", None, None, '{"x": 1.5}'], "name": ["a", None, None, None]}
    assert lines.numbers == [1, 2, 3, 5]
    assert lines.broken == {1: '{"Id": 2', 2: "[3]"}
    assert lines.errors[2] == "not a JSON object"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_compressed_files_read_the_same(tmp_path, suffix):
    data = b"Id,Name\n1,a\n"
    packed = {"": data, ".gz": gzip.compress(data), ".zst": zstandard.compress(data)}[suffix]
    (tmp_path / f"x.csv{suffix}").write_bytes(packed)
    path = find(tmp_path, "x.csv", hint="")
    assert read_csv(path, WANTED, "x").columns == {"id": ["1"], "name": ["a"]}


def test_a_file_that_is_cut_off_is_one_sentence(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"Id,Name\n" + b"1,a\n" * 5000)[:-20])
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_csv(path, WANTED, "x")


def test_a_missing_file_or_folder_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.csv \(or \.gz, \.zst\) is missing\. Ask the shop\."):
        find(tmp_path, "x.csv", hint="Ask the shop.")
    with pytest.raises(FileNotFoundError, match=r"The folder .*nowhere is missing"):
        find(tmp_path / "nowhere", "x.csv", hint="Ask the shop.")
