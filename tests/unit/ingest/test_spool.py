"""Files of a stream as pieces: every line once, under its own file and number, or nothing of the file."""

import gzip
import hashlib
import os
import re
import time
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from include.ingest.connectors import SourceError, stream
from include.ingest.connectors.stream import Arrival, Stream, _copy, _is_unseen, _Manifests, _Writer
from include.ingest.sources import Source
from include.settings import settings

DAY = date(2025, 3, 2)


def _stream(folder: Path, **connection) -> Stream:
    source = Source.model_validate(
        {
            "source": "clicks", "type": "stream", "marketplace": "shop", "currency": "USD",
            "connection": {"folder": str(folder)} | connection,
            "entities": {
                "views": {"key": ["id"], "columns": {"id": {"required": True}}, "read": {"files": "*views*"}},
                "events": {"key": ["id"], "columns": {"id": {"required": True}}},
            },
        }
    )  # fmt: skip
    return Stream(source)


def _pieces(files: dict[str, bytes], folder: Path) -> tuple[list[bytes], list[str]]:
    """The lines of all pieces of the files, and the pieces' identities."""
    writer = _Writer(folder / "pieces")
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content)
        writer.begin("events", DAY, name)
        sha256, n_bytes, _ = _copy(str(path), writer)
        assert (sha256, n_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        writer.end(sha256)
    writer.close()
    lines = [line for piece in writer.pieces for line in piece.path.read_bytes().split(b"\n")[:-1]]
    return lines, [piece.batch for piece in writer.pieces]


LINE = st.sampled_from([b"", b" ", b"\r", b"{}", b'{"b": "' + b"b" * 30 + b'"}', b"\t\0\xff"])


@hypothesis_settings(deadline=None)
@given(
    st.lists(st.lists(LINE, max_size=12), max_size=5),
    st.integers(1, 40), st.integers(1, 40), st.booleans(),
)  # fmt: skip
def test_every_line_is_in_one_piece_under_its_file_and_number(tmp_path_factory, files, chunk, piece, ends):
    folder = tmp_path_factory.mktemp("spool")
    contents = {
        f"f{at}": b"\n".join(lines) + (b"\n" if ends or lines[-1:] == [b"\t\0\xff"] else b"")
        for at, lines in enumerate(files)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CHUNK_BYTES", chunk)
        patch.setattr(stream, "PIECE_BYTES", piece)
        found, _ = _pieces(contents, folder)
    wanted = [
        b"%s\t%s\t%d\t%s" % (str(DAY).encode(), name.encode(), number, line)
        for name, content in contents.items()
        for number, line in enumerate(content.split(b"\n"), 1)
        if line.strip()
    ]
    assert found == wanted


def test_the_same_files_are_the_same_pieces_and_a_changed_byte_is_another(tmp_path):
    contents = {"a": b"1\n2\n", "b": b"3\n"}
    batches = []
    for at, one in enumerate([contents, contents, contents | {"b": b"4\n"}]):
        (tmp_path / str(at)).mkdir()
        batches.append(_pieces(one, tmp_path / str(at))[1])
    assert batches[0] == batches[1] != batches[2]
    assert len(batches[0]) == 1, "small files share a piece"


def test_a_large_file_is_cut_into_pieces_of_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(stream, "PIECE_BYTES", 5000)
    _, batches = _pieces({"a": b"0123456789\n" * 1000}, tmp_path)
    sizes = [path.stat().st_size for path in (tmp_path / "pieces").iterdir()]
    assert len(batches) == len(set(batches)) == len(sizes) > 2
    assert max(sizes) < 5000 + 4000, "a chunk more, and what stands before each line"


PACK = {".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_packed_files_of_several_frames_are_read_whole_and_cut_ones_are_refused(tmp_path, name):
    pack = PACK[Path(name).suffix]
    content = pack(b"1\n" * 100_000) + pack(b"2\n3")
    lines, _ = _pieces({name: content}, tmp_path)
    assert len(lines) == 100_002
    assert lines[-1].endswith(b"\t100002\t3")
    for cut in (0, 10, len(content) - 5):
        (tmp_path / name).write_bytes(content[:cut])
        writer = _Writer(tmp_path / "cut")
        writer.begin("events", DAY, name)
        with pytest.raises(EOFError):
            _copy(str(tmp_path / name), writer)


def test_whole_files_are_found_with_their_day_and_entity(tmp_path):
    for name in ("x/2025-03-02.jsonl", "views-2025-03-01.jsonl.gz", "_y/2025-03-02.jsonl", ".2025-03-02.jsonl",
                 "_2025-03-02.jsonl", "2025-03-02.jsonl.tmp", "2025-03-02.part"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    reader = _stream(tmp_path)
    assert [(one.entity, one.day, one.label) for one in reader.arrivals()] == [
        ("events", DAY, f"{tmp_path}/x/2025-03-02.jsonl"),
        ("views", date(2025, 3, 1), f"{tmp_path}/views-2025-03-01.jsonl.gz"),
    ]
    assert reader.span() == (date(2025, 3, 1), None)
    assert reader.entity_of("views-2025-03-01.jsonl.gz#2") == "views"
    (tmp_path / "readme.txt").touch()
    with pytest.raises(SourceError, match=r"the path of readme.txt says no day"):
        reader.arrivals()
    assert len(_stream(tmp_path, day=r"x/(2025-03-02)|$^").connection.day) > 0


def test_names_that_differ_stay_different_and_are_read_back(tmp_path):
    names = ["a#2025-03-02", "a_2025-03-02", "a%232025-03-02", "a\t2025-03-02", os.fsdecode(b"views\xff#2025-03-02")]
    for name in names:
        (tmp_path / name).touch()
    reader = _stream(tmp_path)
    found = reader.arrivals()
    assert len({one.file for one in found}) == len({one.label for one in found}) == len(names)
    assert not re.search("[\t#]", "".join(one.file for one in found))
    assert [reader.entity_of(f"{one.file}#2") for one in found] == [one.entity for one in found]
    assert [one.file for one in found if one.entity == "views"] == ["views%FF%232025-03-02"]
    "".join(one.label for one in found).encode()


def _taken(tmp_path, content: bytes, name="a.jsonl") -> list[bytes]:
    lines, _ = _pieces({name: content}, tmp_path)
    return [line.split(b"\t", 2)[2] for line in lines]


@pytest.mark.parametrize("end", [b'{"id": "2"', b'{"id": "2", "n": 1', b"2", b'"x', b"[1]", b"\xff", b"[" * 100_000])
def test_a_plain_file_that_stops_within_a_line_is_refused(tmp_path, end):
    with pytest.raises(SourceError, match=r"^a.jsonl is cut off \(file_is_complete\): line 2"):
        _taken(tmp_path, b'{"id": "1"}\n' + end)
    with pytest.raises(SourceError, match=r"line 1, its last"):
        _taken(tmp_path, end)


def test_a_last_line_that_is_an_object_or_blank_needs_no_end(tmp_path):
    assert _taken(tmp_path, b'{"id": "1"}\n{"id": "2"}') == [b'1\t{"id": "1"}', b'2\t{"id": "2"}']
    assert _taken(tmp_path, b'{"id": "1"}\n \r') == [b'1\t{"id": "1"}']
    assert _taken(tmp_path, b"") == []


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(stream, "CHUNK_BYTES", chunk)
    mark = b"\xef\xbb\xbf"
    assert _taken(tmp_path, mark + b'{"id": "1"}') == [b'1\t{"id": "1"}']
    assert _taken(tmp_path, mark + b"{}\n" + mark + b"{}\n") == [b"1\t{}", b"2\t" + mark + b"{}"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("end", [b"", b"\n{}\n"])
def test_a_file_with_a_line_of_any_length_is_refused_and_never_held_in_memory(tmp_path, monkeypatch, name, end):
    content = b"{}\n{}\n" + b"x" * (50 * 2**20) + end
    path = tmp_path / name
    # Packed, all of it is a few KB.
    path.write_bytes(PACK[path.suffix](content, 1) if path.suffix in PACK else content)
    del content
    writer = _Writer(tmp_path / "pieces")
    writer.begin("events", DAY, f"clicks/{name}")
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=rf"clicks/{name}: line 3 is longer than 16 MB"):
            _copy(str(path), writer)
        assert tracemalloc.get_traced_memory()[1] < 24 * 2**20
    finally:
        tracemalloc.stop()
    path.write_bytes(b'{"id": "' + b"x" * (15 * 2**20) + b'"}\n')
    assert path.suffix in PACK or _copy(str(path), writer)[2] == 1


def test_a_file_delivered_again_with_an_older_time_is_looked_at(tmp_path):
    path = tmp_path / "2025-03-02.jsonl"
    path.write_bytes(b"{}\n")
    (arrival,) = _stream(tmp_path).arrivals()
    taken_at = datetime.now(UTC) + timedelta(seconds=0.01)
    seen = {arrival.file: {hashlib.sha256(b"{}\n").hexdigest(): (3, taken_at)}}
    assert not _is_unseen(arrival, seen)
    time.sleep(0.05)
    path.write_bytes(b"[]\n")
    os.utime(path, (0, 0))
    assert _is_unseen(arrival, seen)
    path.write_bytes(b"{}\n")
    assert not _is_unseen(arrival, seen), "touched is not changed"


def test_a_day_that_the_calendar_does_not_have_is_named(tmp_path):
    (tmp_path / "2025-02-30.jsonl").touch()
    with pytest.raises(SourceError, match="2025-02-30"):
        _stream(tmp_path).arrivals()


def test_a_file_waits_for_its_manifest_and_must_be_what_it_says(tmp_path):
    path = tmp_path / "2025-03-02.jsonl"
    path.write_bytes(b"1\n")
    arrival = Arrival("events", DAY, "a", "clicks/a", str(path))
    assert not _Manifests("SUMS").names(arrival)
    (tmp_path / "SUMS").write_text(f"{'0' * 64}  {path.name}\n")
    manifests = _Manifests("SUMS")
    assert manifests.names(arrival)
    with pytest.raises(SourceError, match="another checksum"):
        manifests.check(arrival, hashlib.sha256(b"1\n").hexdigest())
    manifests.check(arrival, "0" * 64)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rules": [{"name": "r", "expectation": "ExpectColumnToExist"}]}, "rules of its columns"),
        ({"deletes": {"by": "column", "column": "id"}}, "deletes"),
        ({"read": {"file": "x"}}, "read.file"),
    ],
)
def test_what_a_stream_cannot_do_is_refused_when_the_yaml_is_read(more, said):
    entity = {"key": ["id"], "columns": {"id": {"required": True}}} | more
    with pytest.raises(ValueError, match=said):
        Source.model_validate(
            {
                "source": "clicks", "type": "stream", "marketplace": "shop", "currency": "USD",
                "connection": {"folder": "x"}, "entities": {"events": entity},
            }
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()
