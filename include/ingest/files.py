"""CSV, JSON lines and Parquet files as tables of strings: a broken line is set aside, the rest is read.

``.gz`` and ``.zst`` files are read as they are. A file that is cut off or damaged is refused as a whole.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from include.ingest.connectors.base import Batch, Found, Options, SourceError
from include.ingest.infer import infer

if TYPE_CHECKING:
    from include.ingest.sources import Entity

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
PIECE = 1 << 23
"""Bytes read at once, then cut at the last line end: what a reader holds beside its result."""
LONGEST = 131_072
"""Longest field of a CSV file, in characters: an unclosed quote must not swallow the rest of the file."""
BOM = codecs.BOM_UTF8
NOT_TEXT = "not {} text"
IN_COLUMN = ", in the column "
"""What comes before the name of a column in the sentence about a broken line."""
N_SAMPLED = 1000
"""Rows that show what a file's columns are."""
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
CUT_OFF = "is cut off or damaged (file_is_complete)"


@dataclass(frozen=True)
class Dialect:
    """How a text file is written; ``quote`` may be empty: then nothing is quoted."""

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    open_end: bool = False


@dataclass
class Rows:
    """The rows of a file, in file order.

    A line that is no row has nulls in all columns of ``table``, a sentence in ``errors`` and its text in ``broken``
    (by position).
    """

    table: pa.Table
    """Strings under the file's own column names; an empty field is null."""
    line: np.ndarray
    """From 1, header and blank lines counted; for Parquet the number of the row."""
    errors: list[str | None]
    broken: dict[int, str]
    columns: tuple[str, ...]
    """All columns of the file, kept or not."""


@dataclass(frozen=True)
class Wanted:
    """Which columns of a file are kept: ``named``, and where ``but`` is given every other one that is not in it."""

    named: Sequence[str]
    but: Collection[str] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.named or (self.but is not None and name not in self.but)


@dataclass
class _Gathered:
    """Pieces of a result."""

    tables: list[pa.Table] = field(default_factory=list)
    lines: list[np.ndarray] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)

    def rows(self, schema: pa.Schema, columns: Sequence[str]) -> Rows:
        table = pa.concat_tables([schema.empty_table(), *self.tables])
        line = np.concatenate([np.empty(0, "int64"), *self.lines])
        return Rows(table, line, self.errors, self.broken, tuple(columns))


def lacks(missing: Sequence[str], there: Sequence[str], named: Collection[str] = ()) -> str:
    """What to say where the columns ``missing`` are not ``there``.

    What is there is only named when it is a header for certain: one of ``named`` is among plain names. Else it may be
    the first row of a file without a header.
    """
    said = f"lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has "
    if not set(named).isdisjoint(there) and all(PLAIN_NAME.fullmatch(one) for one in there):
        return f"{said}{', '.join(there)}."
    return f"{said}{len(there)} column{'s' * (len(there) != 1)}. Is the header missing, or the delimiter another one?"


def find(folder: Path, name: str, *, hint: str) -> Path:
    """The file ``name``, ``name.gz`` or ``name.zst`` in ``folder``; ``SourceError`` says what to do: ``hint``."""
    for suffix in ("", *COMPRESSED):
        path = folder / (name + suffix)
        if path.is_file():
            return path
    if not folder.is_dir():
        raise SourceError(f"The folder {folder} is missing. {hint}")
    raise SourceError(f"{folder / name} (or .gz, .zst) is missing. {hint}")


# --- bytes ---------------------------------------------------------------------------------------


def pieces(path: Path, encoding: str = "utf-8") -> Iterator[bytes]:
    """The file, decompressed and in UTF-8, in pieces that end at line ends (the last one may not).

    Bytes that are no text in ``encoding`` come out as bytes that are no UTF-8. ``SourceError`` where the file is cut
    off or damaged, at the latest after the last piece.
    """
    held: list[bytes] = []
    for data in _decoded(path, encoding):
        cut = data.rfind(b"\n") + 1
        if cut:
            yield b"".join([*held, data[:cut]])
            held = []
        if cut < len(data):
            held.append(data[cut:])
    if held:
        yield b"".join(held)


def _ended(path: Path, dialect: Dialect) -> Iterator[bytes]:
    """``pieces``, refused where the last line has no end though others have: its last value may be half of one.

    Of a compressed file the format says where it ends.
    """
    has_ends, data = False, b""
    for data in pieces(path, dialect.encoding):
        yield data
        has_ends |= data.endswith(b"\n")
    # A line without an end is a piece of its own.
    if has_ends and not data.endswith(b"\n") and not dialect.open_end and path.suffix not in COMPRESSED:
        raise SourceError(
            f"{path} {CUT_OFF}: its last line has no line end, so its last value may be half of one. "
            "Where the source always writes so, say `connection.open_end: true`."
        )


def _decoded(path: Path, encoding: str) -> Iterator[bytes]:
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        yield from _chunks(path)
        return
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    try:
        for data in _chunks(path):
            yield decoder.decode(data).encode("utf-8", "surrogateescape")
        yield decoder.decode(b"", True).encode("utf-8", "surrogateescape")
    except UnicodeError as error:
        raise SourceError(f"{path} is not {encoding} text: {error}") from error


def _chunks(path: Path) -> Iterator[bytes]:
    """Raises where the file ends within a compressed stream, which Python's own readers of .zst do not."""
    compression = COMPRESSED.get(path.suffix)
    if compression and not path.stat().st_size:
        raise SourceError(f"{path} {CUT_OFF}: it is empty.")
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            while data := stream.read(PIECE):
                yield data
    except OSError as error:
        raise SourceError(f"{path} {CUT_OFF}: {error}") from error


# --- CSV -----------------------------------------------------------------------------------------


def read_csv(path: Path, wanted: Wanted, dialect: Dialect = Dialect()) -> Rows:
    """The ``wanted`` columns of a CSV file with a header.

    Pieces without anything unusual are read by Arrow, the others record by record; both give the same.
    ``SourceError`` when there is no header, when the file is cut off, or when it names a wanted column twice.
    """
    return _Csv(path, wanted, dialect).read()


class _Csv:
    def __init__(self, path: Path, wanted: Wanted, dialect: Dialect) -> None:
        self.path, self.dialect = path, dialect
        self.names: list[str] = []
        self.lines = _Lines(_ended(path, dialect), dialect.encoding)
        self.names = self._header()
        kept = [name for name in self.names if name and name in wanted]
        if twice := [name for name in kept if self.names.count(name) > 1]:
            # Without a header it might be a person's name.
            which = twice[0] if twice[0] in wanted.named else f"number {self.names.index(twice[0]) + 1}"
            raise SourceError(f"{path}: the header has the column {which} more than once.")
        if not kept:
            raise SourceError(f"{path} {lacks(wanted.named, self.names)}")
        self.kept = {name: self.names.index(name) for name in kept}
        self.schema = pa.schema([(name, pa.string()) for name in kept])

    def read(self) -> Rows:
        found = _Gathered()
        while data := self.lines.rest():
            table = self._at_once(data)
            if table is None:
                self._one_by_one(found)
                continue
            found.tables.append(table)
            found.lines.append(self.lines.number + 1 + np.arange(len(table)))
            found.errors += [None] * len(table)
            self.lines.skip(len(table))
        return found.rows(self.schema, [name for name in self.names if name])

    def _header(self) -> list[str]:
        _, header, problem = next(self._records(), (0, [], None))
        if problem or not header:
            raise SourceError(f"{self.path} has no header line{f': {problem}' if problem else ''}.")
        return [name.strip() for name in header]

    def _at_once(self, data: bytes) -> pa.Table | None:
        """The piece as a table, or None where a record might be anything but a line, or a line anything but a row."""
        ends = np.flatnonzero(np.frombuffer(data, "uint8") == ord("\n"))
        if not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        unusual = (
            np.diff(ends, prepend=-1).max() > LONGEST
            or b"\0" in data
            # Arrow takes it for a byte order mark.
            or data.startswith(BOM)
            or data.count(b"\r") > data.count(b"\r\n")
        )
        if unusual or not self._is_plainly_quoted(data) or not _is_utf8(data):
            return None
        positions = [str(at) for at in range(len(self.names))]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(data),
                pa_csv.ReadOptions(column_names=positions, block_size=len(data), use_threads=False),
                pa_csv.ParseOptions(delimiter=self.dialect.delimiter, quote_char=self.dialect.quote or False),
                pa_csv.ConvertOptions(
                    include_columns=[str(at) for at in self.kept.values()],
                    column_types=dict.fromkeys(positions, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid:
            return None
        if len(table) < len(ends):
            # Blank lines, which Arrow passes over.
            return None
        return table.rename_columns(list(self.kept))

    def _is_plainly_quoted(self, data: bytes) -> bool:
        """Whether every quote opens or closes a whole field of one line, or is one of two within."""
        quote = self.dialect.quote.encode()
        return not quote or quote not in data or quote not in _quoted_fields(self.dialect).sub(b"", data)

    def _one_by_one(self, found: _Gathered) -> None:
        """Records up to the end of a piece."""
        rows, numbers = [], []
        nothing = [""] * len(self.names)
        for number, row, problem in self._records():
            if problem is None and len(row) != len(self.names):
                problem = f"{len(row)} fields instead of {len(self.names)}"
                # A stray quote may have swallowed the lines that follow: give them back.
                self.lines.give_back()
            if problem is not None:
                if self.lines.is_cut_off():
                    raise SourceError(f"{self.path} {CUT_OFF}: line {number} has no end and is no row: {problem}.")
                found.broken[len(found.errors)] = self.lines.first
            rows.append(nothing if problem else row)
            numbers.append(number)
            found.errors.append(problem)
            if self.lines.is_at_end():
                break
        by_column = list(zip(*rows, strict=True)) if rows else [()] * len(self.names)
        found.tables.append(
            pa.table(
                [pa.array([value or None for value in by_column[at]], pa.string()) for at in self.kept.values()],
                schema=self.schema,
            )
        )
        found.lines.append(np.array(numbers, "int64"))

    def _records(self) -> Iterator[tuple[int, list[str], str | None]]:
        """(line number, fields, what is wrong) per record."""
        lines = self.lines
        how: dict[str, Any] = {"quotechar": self.dialect.quote} if self.dialect.quote else {"quoting": csv.QUOTE_NONE}
        while True:
            reader = csv.reader(lines, delimiter=self.dialect.delimiter, strict=True, **how)
            try:
                while True:
                    lines.taken.clear()
                    row = next(reader)
                    if not row:
                        continue
                    problem = next((one[2] for one in lines.taken if one[2]), None)
                    if problem:
                        problem += self._where(row)
                        lines.give_back()
                    yield lines.taken[0][0], row, problem
                    if lines.waiting:
                        break
            except StopIteration:
                return
            except csv.Error as error:
                number = lines.taken[0][0]
                lines.give_back()
                yield number, [], f"not CSV: {error}"

    def _where(self, row: list[str]) -> str:
        at = next((at for at, value in enumerate(row) if "�" in value), None)
        return f"{IN_COLUMN}{self.names[at]}" if at is not None and len(row) == len(self.names) else ""


@lru_cache
def _quoted_fields(dialect: Dialect) -> re.Pattern[bytes]:
    quote, delimiter = (re.escape(one.encode()) for one in (dialect.quote, dialect.delimiter))
    inner = b"[^" + quote + b"\r\n]*"
    return re.compile(
        b"(?<![^" + delimiter + b"\n])" + quote + inner + b"(?:" + quote * 2 + inner + b")*" + quote
        + b"(?=" + delimiter + b"|\r?\n|\\Z)"
    )  # fmt: skip


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Lines:
    """Decoded lines of pieces, with a memory of those that the current record took."""

    def __init__(self, source: Iterator[bytes], encoding: str) -> None:
        self.source, self.encoding = source, encoding
        self.piece, self.at, self.number = b"", 0, 0
        self.waiting: deque[tuple[int, str, str | None]] = deque()
        self.taken: list[tuple[int, str, str | None]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.waiting:
            item = self.waiting.popleft()
        else:
            if self.at == len(self.piece):
                self.piece, self.at = next(self.source), 0
            end = self.piece.find(b"\n", self.at) + 1 or len(self.piece)
            data, self.at = self.piece[self.at : end], end
            self.number += 1
            item = (self.number, *self._text(data))
        self.taken.append(item)
        return item[1]

    def _text(self, data: bytes) -> tuple[str, str | None]:
        if self.number == 1:
            data = data.removeprefix(BOM)
        problem = None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text, problem = data.decode(errors="replace"), NOT_TEXT.format(self.encoding.upper())
        if "\0" in text:
            text, problem = text.replace("\0", "�"), problem or "a NUL character"
        return text, problem

    @property
    def first(self) -> str:
        return self.taken[0][1].rstrip("\r\n")

    def give_back(self) -> None:
        """All lines of the record but its first are read again."""
        self.waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def is_at_end(self) -> bool:
        """Whether the next line is the first of a piece."""
        return not self.waiting and self.at == len(self.piece)

    def is_cut_off(self) -> bool:
        """Whether the record's first line is the file's last and does not end."""
        return not self.taken[0][1].endswith("\n")

    def rest(self) -> bytes:
        """What is left of the piece, else the next one; empty after the last. Nothing may be ``waiting``."""
        if self.at == len(self.piece):
            self.piece, self.at = next(self.source, b""), 0
        return self.piece[self.at :]

    def skip(self, n: int) -> None:
        """The rest of the piece was read elsewhere: it had ``n`` lines."""
        self.at = len(self.piece)
        self.number += n


# --- JSON lines ----------------------------------------------------------------------------------

DECODE = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode
"""Numbers stay as they are written: 0.10 is not 0.1, and no digit of a long one is lost."""


def read_jsonl(path: Path, wanted: Wanted, dialect: Dialect = Dialect(), n_pieces: int | None = None) -> Rows:
    """The ``wanted`` fields of a file with a JSON object on each line; a field that is absent is null.

    ``n_pieces`` (of ``PIECE`` bytes) is how much of it is read; default all.
    """
    found = _Gathered()
    seen: dict[str, None] = {}
    number = 0
    for data in islice(pieces(path, dialect.encoding), n_pieces):
        rows, numbers = [], []
        ends = data.endswith(b"\n")
        lines = data.split(b"\n")[: -1 if ends else None]
        for at, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row, problem = _object(line.removeprefix(BOM) if number + at == 1 else line, wanted, dialect.encoding)
            if problem:
                if at == len(lines) and not ends:
                    raise SourceError(f"{path} {CUT_OFF}: line {number + at} has no end and is no row: {problem}.")
                text = line.decode("utf-8", errors="replace").replace("\0", "�")
                found.broken[len(found.errors)] = text.strip("\r\n")
            rows.append(row)
            numbers.append(number + at)
            found.errors.append(problem)
            seen.update(dict.fromkeys(row))
        number += len(lines)
        kept = {**dict.fromkeys(wanted.named), **{name: None for name in seen if name in wanted}}
        found.tables.append(pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in kept}))
        found.lines.append(np.array(numbers, "int64"))
    if len({tuple(table.column_names) for table in found.tables}) > 1:
        found.tables = [pa.concat_tables(found.tables, promote_options="default")]
    names = found.tables[-1].column_names if found.tables else wanted.named
    return found.rows(pa.schema([(name, pa.string()) for name in names]), list(seen))


def _object(line: bytes, wanted: Wanted, encoding: str) -> tuple[dict[str, str | None], str | None]:
    """A line's fields as strings (those that nobody wants as null), or what is wrong with it."""
    try:
        text = line.decode()
        row = DECODE(text)
    except UnicodeDecodeError:
        return {}, NOT_TEXT.format(encoding.upper())
    except ValueError as error:
        return {}, f"not JSON: {error}"
    except RecursionError:
        return {}, "not JSON: nested too deeply"
    if not isinstance(row, dict):
        return {}, "not a JSON object"
    for name, value in row.items():
        if name not in wanted:
            row[name] = None
        elif isinstance(value, str):
            if "\0" in value:
                return {}, f"a NUL character{IN_COLUMN}{name}"
            if not value.isascii() and not _is_encodable(value):
                return {}, f"half a character (a lone surrogate){IN_COLUMN}{name}"
            row[name] = value or None
        elif value is not None:
            # Not from `row`, where numbers within are strings.
            try:
                row[name] = json.dumps(json.loads(text)[name])
            except ValueError as error:
                return {}, f"not JSON: {error}{IN_COLUMN}{name}"
    return row, None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- Parquet -------------------------------------------------------------------------------------


def read_parquet(path: Path, wanted: Wanted, dialect: Dialect = Dialect()) -> Rows:
    """The ``wanted`` columns of a Parquet file as strings: times in ISO 8601, decimals as written, nested as JSON.

    ``SourceError`` when the file has no footer or a damaged page.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            read = file.read([name for name in names if name in wanted])
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path} {CUT_OFF}: {error}") from error
    errors: list[str | None] = [None] * len(read)
    columns = {name: _texts(name, read.column(name), errors) for name in read.column_names}
    bad = np.array([one is not None for one in errors], bool)
    broken = {}
    if bad.any():
        good = pa.array(~bad)
        for at in np.flatnonzero(bad).tolist():
            row = {name: values[at].as_py() for name, values in columns.items()}
            broken[at] = json.dumps(row).replace("\\u0000", "�")
        columns = {name: pc.if_else(good, values, None) for name, values in columns.items()}
    table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
    return Rows(table, np.arange(1, len(read) + 1), errors, broken, tuple(names))


def _texts(name: str, column: pa.ChunkedArray, errors: list[str | None]) -> pa.Array:
    """A column as strings; what is no text is replaced, and named in ``errors``."""
    values = column.combine_chunks()
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if pa.types.is_nested(kind):
        values = pa.array(
            [None if one is None else json.dumps(one, default=str) for one in values.to_pylist()], pa.string()
        )
    elif pa.types.is_timestamp(kind):
        # Arrow spells nine digits of a second, of which ingest takes six.
        values = pc.cast(pc.cast(values, pa.timestamp("us", tz=kind.tz), safe=False), pa.string())
    elif pa.types.is_floating(kind):
        values = _plain_numbers(pc.cast(values, pa.string()))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        values = _checked(name, values, errors)
    elif not pa.types.is_null(kind):
        values = pc.cast(values, pa.string())
    values = pc.cast(values, pa.string())
    return pc.if_else(pc.equal(values, ""), None, values)


def _plain_numbers(values: pa.Array) -> pa.Array:
    """1e-07 as 0.0000001, as ingest reads numbers."""
    if not pc.any(pc.match_substring(values, "e")).as_py():
        return values
    return pa.array(
        [format(Decimal(one), "f") if one and "e" in one else one for one in values.to_pylist()], pa.string()
    )


def _checked(name: str, values: pa.Array, errors: list[str | None]) -> pa.Array:
    raw = pc.cast(values, pa.binary())
    try:
        checked = pc.cast(raw, pa.string())
    except pa.ArrowInvalid:
        checked = None
    if checked is not None and not pc.any(pc.match_substring(checked, "\0")).as_py():
        return checked
    texts: list[str | None] = []
    for at, one in enumerate(raw.to_pylist()):
        text = None if one is None else one.decode(errors="replace")
        if text is not None and ("\0" in text or text.encode() != one):
            errors[at] = f"{'a NUL character' if chr(0) in text else NOT_TEXT.format('UTF-8')}{IN_COLUMN}{name}"
        texts.append(text)
    return pa.array(texts, pa.string())


READERS: dict[str, Callable[[Path, Wanted, Dialect], Rows]] = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
"""Format -> its reader."""


# --- what the connectors of files share ----------------------------------------------------------

Ascii = Annotated[str, Field(pattern=r"^[\x01-\x09\x0b\x0c\x0e-\x7f]$", description="One character.")]


class Written(Options):
    """How a source's files are written."""

    delimiter: Ascii = ","
    quote: Ascii | Literal[""] = '"'
    encoding: str = "utf-8"
    open_end: bool = False
    """CSV files end without a line end, so that one that was cut off in its last value cannot be told."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError as error:
            raise ValueError(f"there is no encoding {value!r}") from error
        return value

    @property
    def dialect(self) -> Dialect:
        """The same for the readers."""
        return Dialect(self.delimiter, self.quote, self.encoding, self.open_end)


PART = re.compile(r"^0[1-9]$|^$")


class Derived(Options):
    """Columns made of others of the same row."""

    derive: dict[str, str] = {}
    """Column -> text with columns of the file in braces: ``"{year}-{month:02}-{day:02}"``; ``:02`` fills up with
    zeros. Null where one of them is."""

    @field_validator("derive")
    @classmethod
    def _can_be_filled_in(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            try:
                parts = list(Formatter().parse(text))
            except ValueError as error:
                raise ValueError(f"{name}: {text!r}: {error}") from error
            if not any(part[1] for part in parts):
                raise ValueError(f"{name}: {text!r} names no column in braces")
            if wrong := [part[2] for part in parts if part[2] and not PART.match(part[2])]:
                raise ValueError(f"{name}: {wrong[0]!r} is no width; write :02 to fill up with zeros")
        return value

    @property
    def parts(self) -> list[str]:
        """Columns of the file that others are made of."""
        parsed = (part for text in self.derive.values() for part in Formatter().parse(text))
        return list(dict.fromkeys(part[1] for part in parsed if part[1]))


def wanted(entity: Entity, read: Derived, made: Collection[str] = ()) -> Wanted:
    """What is to be read for an entity; ``made`` are columns (names in the source) that no file has.

    With the policy ``freeze`` an unnamed column's name is all that matters, so its values are not kept.
    """
    named = [of for of in entity.source_columns.values() if of not in read.derive and of not in made]
    but = None if entity.schema_policy == "freeze" else entity.ignore
    return Wanted(list(dict.fromkeys([*named, *read.parts])), but)


def read_file(
    path: Path, kind: str, entity: Entity, read: Derived, dialect: Dialect, made: Collection[str] = ()
) -> Rows:
    """A file's rows with the columns that ``read.derive`` makes, without those that serve only to make them."""
    rows = READERS[kind](path, wanted(entity, read, made), dialect)
    return _with_derived(path, rows, entity, read) if read.derive else rows


def batch(entity: str, rows: Rows, file: str, day: date) -> Batch:
    """The rows of a business day's file as a connector yields them; ``file`` is its name for people."""
    return Batch(
        entity,
        rows.table,
        file=file,
        line=rows.line,
        partition_on=np.full(len(rows.line), np.datetime64(day)),
        errors=rows.errors,
        broken=rows.broken,
        columns=rows.columns,
    )


def sample(path: Path, kind: str, entity: Entity, read: Derived, dialect: Dialect) -> list[Found]:
    """What the columns of a file are, by its first rows; as ``read_file`` has them, wanted or not."""
    rows = READERS[kind](path, Wanted([], ()), dialect)
    rows.table = rows.table.slice(0, N_SAMPLED)
    some = (_with_derived(path, rows, entity, read) if read.derive else rows).table
    return infer({name: some.column(name).to_pylist() for name in some.column_names})


def _with_derived(path: Path, rows: Rows, entity: Entity, read: Derived) -> Rows:
    if lacking := [name for name in read.parts if name not in rows.table.column_names]:
        raise SourceError(f"{path} lacks the column {lacking[0]}, of which another is to be made.")
    table = rows.table
    for name, text in read.derive.items():
        table = table.append_column(name, _filled_in(table, text))
    only_parts = {*read.parts} - {*entity.source_columns.values()}
    rows.table = table.select([name for name in table.column_names if name not in only_parts])
    rows.columns = tuple(name for name in rows.columns if name not in only_parts)
    return rows


def _filled_in(table: pa.Table, text: str) -> pa.Array:
    pieces: list[Any] = []
    for literal, name, width, _ in Formatter().parse(text):
        pieces.append(pa.scalar(literal))
        if name:
            values = table.column(name).combine_chunks()
            pieces.append(pc.utf8_lpad(values, int(width), "0") if width else values)
    return pc.binary_join_element_wise(*pieces, "")
