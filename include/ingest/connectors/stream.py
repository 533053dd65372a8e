"""Event streams: files of JSON lines that arrive in a folder, whenever they do.

``spool`` takes the whole files that it has not seen, and cuts or packs them into pieces that Spark reads in parallel
(``spark_jobs.stream``). The ledger ``ops.stream_file`` remembers the business day on which each was taken.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote_to_bytes

import psycopg
import pyarrow as pa
from pydantic import field_validator

from include.dates import parse_day
from include.ingest import files
from include.ingest.connectors.base import Batch, Connector, Found, Options, SourceError
from include.ingest.infer import infer
from include.ingest.sources import Entity, Source
from include.settings import settings
from include.warehouse.copy import copy_table

PIECE_BYTES = 64 * 2**20
CHUNK_BYTES = 2**18
"""Of a file's content at a time: what the processor's cache holds is copied twice as fast as 4 MB."""
LINE_BYTES = 16 * 2**20
"""The longest line that is taken: Spark holds a line as text, as JSON and as columns at once."""
UNFINISHED = (".tmp", ".part")
N_NAMED = 5


class Stream(Connector):
    """Reads every file below ``<folder>``; ``.gz`` and ``.zst`` as they are.

    A file is taken once, when it is whole: what a producer has not finished begins with ``.`` or ``_``, or ends in
    ``.tmp`` or ``.part``.
    """

    name = "stream"
    lands_in_spark = True

    class Connection(Options):
        folder: str
        """Absolute, or under the home."""
        day: str = r"\d{4}-\d{2}-\d{2}"
        """Regular expression that finds the day in a file's path, as YYYY-MM-DD (its first group, if it has one)."""
        manifest: str | None = None
        """Name of the list, one in each folder with files, of their checksums as sha256sum writes them; a file that
        is not in it yet waits."""

        @field_validator("day")
        @classmethod
        def _compiles(cls, value: str) -> str:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is no regular expression: {error}") from error
            return value

    class Read(Options):
        files: str = "*"
        """Which of the files hold this entity: a pattern of their paths below the folder, * for any characters."""

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        if entity.rules:
            raise ValueError(f"entities.{name}.rules: a stream keeps the rules of its columns only")
        if entity.deletes:
            raise ValueError(f"entities.{name}.deletes: what a stream said is not taken back")

    @property
    def folder(self) -> Path:
        """Where the files arrive."""
        return settings().home / self.connection.folder

    def span(self) -> tuple[date | None, date | None]:
        there = self.arrivals() if self.folder.is_dir() else []
        return min((one.day for one in there), default=None), None

    def read(self, first: date, last: date) -> Iterator[Batch]:
        raise SourceError(f"{self.source.source} is a stream: run python -m spark_jobs.stream.")

    def look(self, day: date) -> Iterator[Batch]:
        """The first piece of the day's first file of each entity."""
        seen: set[str] = set()
        for one in self.arrivals():
            if one.day != day or one.entity in seen:
                continue
            seen.add(one.entity)
            rows = files.read_jsonl(Path(one.path), files.Wanted([], ()), n_pieces=1)
            yield files.batch(one.entity, rows, one.label, day)

    def discover(self) -> dict[str, list[Found]]:
        """From the first rows of the newest file of each entity; without entities, of all files as ``events``."""
        if not self.source.entities:
            events = {"events": Entity.model_construct(key=[], columns={}, read={})}
            return Stream(self.source.model_copy(update={"entities": events}), self.data).discover()
        newest = {one.entity: one for one in self.arrivals()}
        found = {}
        for one in newest.values():
            rows = files.read_jsonl(Path(one.path), files.Wanted([], ()), n_pieces=1)
            some = rows.table.slice(0, files.N_SAMPLED)
            found[one.entity] = infer({name: some.column(name).to_pylist() for name in some.column_names})
        return found

    def arrivals(self) -> list[Arrival]:
        """The whole files there are, by entity, day and path. ``SourceError`` where a path says no day."""
        if not self.folder.is_dir():
            raise SourceError(f"The folder {self.folder} of {self.source.source} is missing.")
        pattern = re.compile(self.connection.day)
        found = []
        for path in _files(self.folder):
            below = path[len(str(self.folder)) + 1 :]
            if os.path.basename(path) == self.connection.manifest or (entity := self._entity(below)) is None:
                continue
            match = pattern.search(below)
            if match is None:
                raise SourceError(
                    f"{self.source.source}: the path of {below} says no day ({self.connection.day}): rename it, move "
                    "it away, or narrow `files`."
                )
            try:
                day = parse_day(match.group(1) if pattern.groups else match.group())
            except ValueError as error:
                raise SourceError(f"{self.source.source}: the path of {below}: {error}") from error
            found.append(Arrival(entity, day, _escaped(below), self.label(_escaped(below)), path))
        return sorted(found, key=lambda one: (one.entity, one.day, one.file))

    def label(self, file: str) -> str:
        """The name that the rows of a file in the ledger carry: with the folder, for people."""
        return f"{_escaped(self.connection.folder)}/{file}"

    def _entity(self, below: str) -> str | None:
        return next((name for name, read in self.reads.items() if fnmatch.fnmatchcase(below, read.files)), None)

    def entity_of(self, file: str) -> str | None:
        """The entity of a file that was taken, by its name in the ledger."""
        return self._entity(os.fsdecode(unquote_to_bytes(file.partition("#")[0])))


def _escaped(path: str) -> str:
    """What would not be a name in a piece, or no text at all, as in a URL: two paths are never one name."""
    return re.sub(r"[%#\t\r\n\udc80-\udcff]", lambda found: quote(os.fsencode(found.group())), path)


@dataclass(frozen=True)
class Arrival:
    """A file that has arrived: the entity it holds, and the day in its path."""

    entity: str
    day: date
    file: str
    """Its name in the ledger: the path below the folder, which may move."""
    label: str
    """The name that its rows carry."""
    path: str


@dataclass(frozen=True)
class Spooled:
    """What a spool step took."""

    n_files: int
    n_bytes: int
    n_lines: int
    waiting: list[str]
    """Files that no manifest names yet."""


def state_folder(source: str) -> Path:
    """Where a stream keeps its spool and checkpoints."""
    return settings().home / "streams" / source


def pieces_folder(source: str, entity: str) -> Path:
    """Pieces by business day: ``<partition_on>/<take>-<batch>.jsonl``.

    A line is the business day, the file, the line's number in it and the line itself, with tabs between. ``batch``
    identifies the content: the same files give the same pieces.
    """
    return state_folder(source) / "spool" / entity


def spool(stream: Stream, conn: psycopg.Connection, first: date, last: date) -> Spooled:
    """Take the unseen files of days up to ``last``, and commit.

    A file's business day is the day in its path, but at least ``first`` and after the last day that was loaded: a
    closed day that is run again takes no more than it took, and what is late lands in the next one. Pieces are
    written beside, moved into place, and count from the moment the ledger knows them: whatever a killed run left is
    removed by the next one. ``SourceError`` where a file is cut off or not what its manifest says; nothing is taken
    then.
    """
    source = stream.source.source
    _clean(source, conn)
    closed = _one(conn, "select max(partition_on) from ops.load_audit where source = %s", source)
    earliest = max(first, closed + timedelta(days=1)) if closed else first
    if earliest > last:
        return Spooled(0, 0, 0, [])
    seen = _seen(conn, source)
    unseen = [one for one in stream.arrivals() if one.day <= last and _is_unseen(one, seen)]
    checksums = _Manifests(stream.connection.manifest)
    announced = [one for one in unseen if checksums.names(one)]
    waiting = [one.label for one in unseen if not checksums.names(one)]

    take = uuid.uuid4().hex[:12]
    beside = state_folder(source) / f".{take}"
    entries: list[dict[str, Any]] = []
    problems = []
    writer = _Writer(beside)
    try:
        for arrival in sorted(announced, key=lambda one: (one.entity, max(one.day, earliest), one.file)):
            partition_on = max(arrival.day, earliest)
            file = _numbered(arrival, seen)
            writer.begin(arrival.entity, partition_on, stream.label(file))
            try:
                sha256, n_bytes, n_lines = _copy(arrival.path, writer)
                checksums.check(arrival, sha256)
            except EOFError as error:
                problems.append(f"{arrival.label} is cut off or damaged ({error})")
                continue
            except SourceError as error:
                problems.append(str(error))
                continue
            writer.end(sha256)
            entries.append(
                {
                    "source": source, "file": file, "sha256": sha256, "n_bytes": n_bytes, "n_lines": n_lines,
                    "partition_on": partition_on, "take": take,
                }
            )  # fmt: skip
        writer.close()
        if problems:
            named = "; ".join(problems[:N_NAMED])
            more = f"; and {len(problems) - N_NAMED} more" if len(problems) > N_NAMED else ""
            raise SourceError(f"{source}: nothing was taken: {named}{more}. Deliver it again, or move it away.")
        for piece in writer.pieces:
            folder = pieces_folder(source, piece.entity) / str(piece.partition_on)
            folder.mkdir(parents=True, exist_ok=True)
            piece.path.rename(folder / f"{take}-{piece.batch}.jsonl")
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if entries:
        copy_table(conn, "ops.stream_file", pa.Table.from_pylist(entries))
    conn.commit()
    return Spooled(
        len(entries), sum(one["n_bytes"] for one in entries), sum(one["n_lines"] for one in entries), waiting
    )


def expected(stream: Stream, conn: psycopg.Connection, first: date, last: date) -> dict[tuple[str, date], int]:
    """(entity, business day) -> lines that the ledger says were taken."""
    found: dict[tuple[str, date], int] = defaultdict(int)
    for file, day, n_lines in conn.execute(
        "select file, partition_on, n_lines from ops.stream_file where source = %s and partition_on between %s and %s",
        (stream.source.source, first, last),
    ):
        found[stream.entity_of(file) or "", day] += n_lines
    return dict(found)


def texts(source: str, entity: str, wanted: Iterable[tuple[date, str, str, int]]) -> dict[tuple[date, str, int], str]:
    """(day, file, line) -> the text of the line, for (day, batch, file, line): lines that are no rows."""
    by_piece: dict[tuple[date, str], set[bytes]] = defaultdict(set)
    for day, batch, file, line in wanted:
        by_piece[day, batch].add(f"{day}\t{file}\t{line}".encode())
    found = {}
    for (day, batch), heads in by_piece.items():
        for path in (pieces_folder(source, entity) / str(day)).glob(f"*-{batch}.jsonl"):
            with open(path, "rb") as lines:
                for data in lines:
                    head, text = _halves(data)
                    if head in heads:
                        _, file, number = head.decode("utf-8", "replace").split("\t")
                        found[day, file, int(number)] = text.decode("utf-8", "replace").rstrip("\r\n")
    return found


def _halves(data: bytes) -> tuple[bytes, bytes]:
    """A piece's line: what identifies it, and the line itself."""
    at = data.index(b"\t", data.index(b"\t", data.index(b"\t") + 1) + 1)
    return data[:at], data[at + 1 :]


# --- what is there ------------------------------------------------------------------------------------


def _files(folder: Path | str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "_")) or entry.name.endswith(UNFINISHED):
                continue
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                yield entry.path


def _clean(source: str, conn: psycopg.Connection) -> None:
    """Remove pieces that the ledger does not know, and what was being written: a run was killed before it took them."""
    folder = state_folder(source)
    takes = {take for (take,) in conn.execute("select distinct take from ops.stream_file where source = %s", (source,))}
    for left in folder.glob(".*"):
        shutil.rmtree(left, ignore_errors=True)
    for piece in folder.glob("spool/*/*/*.jsonl"):
        if piece.name.split("-")[0] not in takes:
            piece.unlink()


Seen = dict[str, dict[str, tuple[int, datetime]]]
"""File -> checksum -> (bytes, when it was taken)."""


def _seen(conn: psycopg.Connection, source: str) -> Seen:
    found: Seen = defaultdict(dict)
    for file, sha256, n_bytes, taken_at in conn.execute(
        "select file, sha256, n_bytes, taken_at from ops.stream_file where source = %s", (source,)
    ):
        # Another content under a name that was taken before is a file of its own.
        found[file.partition("#")[0]][sha256] = (n_bytes, taken_at)
    return dict(found)


def _is_unseen(arrival: Arrival, seen: Seen) -> bool:
    """Whether the file, or its present content, was never taken; one that was touched since is read to find out."""
    taken = seen.get(arrival.file)
    if not taken:
        return True
    status = os.stat(arrival.path)
    # A copy may keep an old time of modification; when it came here it cannot choose.
    changed_at = datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), UTC)
    if any(n_bytes == status.st_size and changed_at <= at for n_bytes, at in taken.values()):
        return False
    with open(arrival.path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() not in taken


def _numbered(arrival: Arrival, seen: Seen) -> str:
    again = len(seen.get(arrival.file, ()))
    return f"{arrival.file}#{again + 1}" if again else arrival.file


class _Manifests:
    """Checksums by file; without a manifest every file is announced."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.read: dict[str, dict[str, str]] = {}

    def names(self, arrival: Arrival) -> bool:
        return self.name is None or os.path.basename(arrival.path) in self._of(arrival)

    def check(self, arrival: Arrival, sha256: str) -> None:
        if self.name is not None and self._of(arrival)[os.path.basename(arrival.path)] != sha256:
            raise SourceError(f"{arrival.label} has another checksum than its manifest says")

    def _of(self, arrival: Arrival) -> dict[str, str]:
        folder = os.path.dirname(arrival.path)
        if folder not in self.read:
            assert self.name is not None
            path = Path(folder, self.name)
            lines = path.read_text().splitlines() if path.is_file() else []
            pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
            self.read[folder] = {pair[-1].strip().removeprefix("*"): pair[0].lower() for pair in pairs}
        return self.read[folder]


# --- pieces ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    entity: str
    partition_on: date
    path: Path
    batch: str


class _Writer:
    """Lines of one file after the other into pieces of ``PIECE_BYTES``, each of one entity and business day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pieces: list[_Piece] = []
        self.pending: list[tuple[Path, list[tuple[str, int, int]]]] = []
        self.checksums: dict[str, str] = {}
        self.of: tuple[str, date] | None = None
        self.out: IO[bytes] | None = None
        self.label = ""
        self.n_written = 0

    def begin(self, entity: str, partition_on: date, label: str) -> None:
        if self.of != (entity, partition_on):
            self._finish_group()
            self.of = (entity, partition_on)
        self.label = label
        self.head = f"{partition_on}\t{label}\t".encode()

    def write(self, numbered: list[tuple[int, bytes]]) -> None:
        if not numbered:
            return
        if self.out is None or self.n_written >= PIECE_BYTES:
            self._open()
        head = self.head
        data = b"".join([b"%b%d\t%b\n" % (head, number, line) for number, line in numbered])
        assert self.out is not None
        self.out.write(data)
        self.n_written += len(data)
        self.pending[-1][1].append((self.label, numbered[0][0], numbered[-1][0]))

    def end(self, sha256: str) -> None:
        self.checksums[self.label] = sha256

    def close(self) -> None:
        self._finish_group()

    def _open(self) -> None:
        self._close_file()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{len(self.pieces) + len(self.pending)}"
        self.pending.append((path, []))
        self.out = open(path, "wb")  # noqa: SIM115
        self.n_written = 0

    def _close_file(self) -> None:
        if self.out is not None:
            os.fdatasync(self.out.fileno())
            self.out.close()
            self.out = None

    def _finish_group(self) -> None:
        self._close_file()
        self.n_written = 0
        for path, parts in self.pending:
            said = "".join(f"{label}\t{self.checksums.get(label)}\t{first}\t{last}\n" for label, first, last in parts)
            batch = hashlib.sha256(f"{self.of}\n{said}".encode()).hexdigest()[:16]
            assert self.of is not None
            self.pieces.append(_Piece(*self.of, path, batch))
        self.pending = []


def _copy(path: str, writer: _Writer) -> tuple[str, int, int]:
    """Write a file's lines that are not blank; its checksum and bytes as delivered, and the lines written.

    ``SourceError`` where a line is too long, or a plain file stops within a line.
    """
    n_lines = 0
    first, lines = 1, [b""]
    with open(path, "rb", buffering=0) as handle:
        delivered = _Delivered(handle)
        for first, lines in _lines(_plain(path, delivered), writer.label):
            if first == 1:
                lines[0] = lines[0].removeprefix(files.BOM)
            numbered = [(number, line) for number, line in enumerate(lines, first) if line and not line.isspace()]
            writer.write(numbered)
            n_lines += len(numbered)
    # What is packed says itself where it ends.
    if Path(path).suffix not in files.COMPRESSED and not _is_whole(lines[-1]):
        raise SourceError(
            f"{writer.label} is cut off (file_is_complete): line {first}, its last, has no end and is no JSON object"
        )
    return delivered.sha256.hexdigest(), delivered.n_bytes, n_lines


class _Delivered(io.RawIOBase):
    """A file as it was delivered: what is read of it is counted and goes into its checksum."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.sha256 = hashlib.sha256()
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.handle.read(size)
        self.sha256.update(data)
        self.n_bytes += len(data)
        return data


def _is_whole(last: bytes) -> bool:
    """Whether a line without an end is one: blank, or an object, which says itself where it ends."""
    try:
        return not last.strip() or isinstance(json.loads(last), dict)
    except (ValueError, RecursionError):
        return False


def _lines(chunks: Iterable[bytes], label: str) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines without their ends), as many at a time as a chunk has; last, what has no end."""
    number, rest, n_rest = 1, [b""], 0
    for chunk in chunks:
        end = chunk.rfind(b"\n")
        lines = []
        if end >= 0:
            lines = (b"".join(rest) + chunk[:end]).split(b"\n")
            rest, n_rest = [], 0
        rest.append(chunk[end + 1 :])
        n_rest += len(rest[-1])
        sizes = [*map(len, lines), n_rest]
        if max(sizes) > LINE_BYTES:
            at = number + next(at for at, size in enumerate(sizes) if size > LINE_BYTES)
            raise SourceError(f"{label}: line {at} is longer than {LINE_BYTES / 2**20:g} MB, or the file has no lines")
        if lines:
            yield number, lines
            number += len(lines)
    yield number, [b"".join(rest)]


def _plain(path: str, delivered: _Delivered) -> Iterator[bytes]:
    """A file's content, ``CHUNK_BYTES`` at a time whatever a packed byte holds. ``EOFError``: cut off or damaged."""
    packed = files.COMPRESSED.get(Path(path).suffix)
    if packed is None:
        while data := delivered.read(CHUNK_BYTES):
            yield data
        return
    try:
        # Python's own readers of .zst do not notice a cut one.
        with pa.CompressedInputStream(pa.PythonFile(delivered, mode="r"), packed) as stream:
            while data := stream.read(CHUNK_BYTES):
                yield data
    except OSError as error:
        raise EOFError(str(error)) from error
    if not delivered.n_bytes:
        raise EOFError("it is empty")


def _one(conn: psycopg.Connection, query: str, *values: object) -> Any:
    row = conn.execute(query, values).fetchone()
    return row[0] if row else None
