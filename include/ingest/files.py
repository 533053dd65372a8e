"""CSV and JSONL files as strings, line by line: a broken line is set aside, the rest is read.

``.gz`` and ``.zst`` files are read as they are.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import zstandard

SUFFIXES = ("", ".gz", ".zst")


@dataclass
class Lines:
    """Rows of one or more files in file order, columns as lists of strings.

    A line that is no row has nulls in all columns, a sentence in ``errors`` and its text in ``broken`` (by position).
    """

    columns: dict[str, list[str | None]]
    files: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)
    """All columns of the file, wanted or not."""

    def extend(self, other: Lines) -> None:
        """Append the rows of ``other``, which has the same columns."""
        offset = len(self.numbers)
        for name, values in self.columns.items():
            values.extend(other.columns[name])
        self.files += other.files
        self.numbers += other.numbers
        self.errors += other.errors
        self.broken |= {offset + position: text for position, text in other.broken.items()}


def find(folder: Path, name: str, *, hint: str) -> Path:
    """The file ``name``, ``name.gz`` or ``name.zst`` in ``folder``.

    ``FileNotFoundError`` with what is missing and ``hint``, what to do about it.
    """
    for suffix in SUFFIXES:
        path = folder / (name + suffix)
        if path.is_file():
            return path
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} is missing. {hint}")
    raise FileNotFoundError(f"{folder / name} (or .gz, .zst) is missing. {hint}")


def read_csv(path: Path, wanted: Mapping[str, str], label: str) -> Lines:
    """Columns ``wanted`` (name here -> name in the header) of a CSV file with a header; empty fields are null.

    ``label`` is how rows name their file. Columns nobody wants are never kept. ``ValueError`` when the header
    lacks a column or the file is cut off.
    """
    with _open(path) as handle:
        try:
            return _read_csv(handle, path, wanted, label)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise ValueError(f"{path} is cut off or damaged: {error}") from error


def _read_csv(handle: IO[bytes], path: Path, wanted: Mapping[str, str], label: str) -> Lines:
    source = _Source(handle)
    records = _records(source)
    _, header, _ = next(records, (0, None, None))
    if header is None:
        raise ValueError(f"{path} has no header line.")
    names = [name.strip() for name in header]
    if lacking := [name for name in wanted.values() if name not in names]:
        raise ValueError(f"{path} lacks the column {', '.join(lacking)}; its header is: {', '.join(names)}.")
    result = Lines(columns={})
    rows: list[list[str]] = []
    nothing = [""] * len(names)
    for number, row, problem in records:
        if problem is None and len(row) != len(names):
            problem = f"{len(row)} fields instead of {len(names)}"
            # A stray quote may have swallowed the lines that follow: give them back.
            source.give_back()
        if problem is None:
            rows.append(row)
            result.errors.append(None)
        else:
            result.broken[len(rows)] = source.first
            rows.append(nothing)
            result.errors.append(problem)
        result.numbers.append(number)
    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    result.columns = {name: [value or None for value in by_column[names.index(of)]] for name, of in wanted.items()}
    result.files = [label] * len(rows)
    result.header = names
    return result


class _Source:
    """Decoded lines with a memory of those that the current record took."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = iter(handle)
        self.waiting: deque[tuple[int, str, bool]] = deque()
        self.taken: list[tuple[int, str, bool]] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.waiting:
            item = self.waiting.popleft()
        else:
            data = next(self.handle)
            self.number += 1
            try:
                text, is_text = data.decode("utf-8-sig" if self.number == 1 else "utf-8"), True
            except UnicodeDecodeError:
                text, is_text = data.decode("utf-8", errors="replace"), False
            if "\0" in text:
                text, is_text = text.replace("\0", "�"), False
            item = (self.number, text, is_text)
        self.taken.append(item)
        return item[1]

    @property
    def first(self) -> str:
        return self.taken[0][1].rstrip("\r\n")

    def give_back(self) -> None:
        """All lines of the record but its first are read again."""
        self.waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _records(source: _Source) -> Iterator[tuple[int, list[str], str | None]]:
    """(line number, fields, what is wrong) per record."""
    while True:
        reader = csv.reader(source, strict=True)
        try:
            while True:
                source.taken.clear()
                row = next(reader)
                if not row:
                    continue
                number, _, is_text = source.taken[0]
                if not is_text:
                    source.give_back()
                yield number, row, None if is_text else "not UTF-8 text"
                if source.waiting:
                    break
        except StopIteration:
            return
        except csv.Error as error:
            number = source.taken[0][0]
            source.give_back()
            yield number, [], f"not CSV: {error}"


def read_jsonl(path: Path, wanted: Mapping[str, str], label: str) -> Lines:
    """Fields ``wanted`` of a file with a JSON object on each line; a field that is absent is null."""
    result = Lines(columns={name: [] for name in wanted})
    columns = [(result.columns[name], of) for name, of in wanted.items()]
    with _open(path) as handle:
        try:
            for number, data in enumerate(handle, 1):
                if not data.strip():
                    continue
                row, problem = _object(data)
                if problem:
                    result.broken[len(result.numbers)] = data.decode("utf-8", errors="replace").strip("\r\n")
                for values, of in columns:
                    values.append(_text(row.get(of)))
                result.numbers.append(number)
                result.errors.append(problem)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise ValueError(f"{path} is cut off or damaged: {error}") from error
    result.files = [label] * len(result.numbers)
    return result


def _object(data: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        row = json.loads(data)
    except UnicodeDecodeError:
        return {}, "not UTF-8 text"
    except ValueError as error:
        return {}, f"not JSON: {error}"
    return (row, None) if isinstance(row, dict) else ({}, "not a JSON object")


def _text(value: Any) -> str | None:
    """A JSON value as a string; Postgres cannot hold NUL."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.replace("\0", "�")
    return json.dumps(value)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return io.BufferedReader(zstandard.open(path, "rb"))
    return open(path, "rb")
