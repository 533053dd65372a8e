"""Files that a source delivers once a business day."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from fnmatch import translate
from glob import iglob
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from include.dates import cut, days
from include.ingest import files
from include.ingest.connectors.base import Batch, Connector, Found, SourceError
from include.ingest.sources import Entity, Source
from include.settings import settings

DAY = "{day}"
DIGITS = {"%Y": 4, "%m": 2, "%d": 2}
CHUNK_BYTES = 256 << 20
"""Bytes of the files of all entities that are landed at a time; a single day is never split."""
PACKED = 8
"""How many bytes a byte of a compressed file counts for, about."""
LISTED = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")

Format = Literal["csv", "jsonl", "parquet"]


class Files(Connector):
    """Reads ``<folder>/<file>.<format>[.gz|.zst]``, where ``{day}`` in ``folder`` or ``file`` is the business day;
    where it is in neither, each day has a folder of its own in ``folder``.

    An entity may come in part files: ``orders.csv`` and ``orders.<anything>.csv`` are both ``file: orders``, and
    ``file`` may hold ``*``. What a day's file says became known on that day, whatever its cursor says: an older cursor
    counts as the start of the day, a later one as its end.
    """

    name = "files"

    class Connection(files.Written):
        folder: str
        """Absolute, or under the home; ``{day}`` is the business day."""
        day_format: str = "%Y-%m-%d"
        """How ``{day}`` is written: ``%Y``, ``%m`` and ``%d`` with anything between."""
        format: Format = "csv"
        manifest: str | None = None
        """A file of lines as ``sha256sum`` writes them, in the day's folder: only what it lists is read."""

        @field_validator("day_format")
        @classmethod
        def _is_a_day(cls, value: str) -> str:
            if sorted(re.findall("%.", value)) != sorted(DIGITS):
                raise ValueError(f"{value!r} must have %Y, %m and %d once each and no other")
            return value

    class Read(files.Derived):
        file: str | None = None
        """Name without its ending; default the entity's."""
        format: Format | None = None
        """Where it is not the connection's."""
        optional: bool = False
        """A day without the file is a day without rows."""

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        connection = cls.Connection.model_validate(source.connection)
        file = cls.Read.model_validate(entity.read).file or name
        if "/" in file:
            raise ValueError(f"entities.{name}.read.file: {file!r} is a path; say the folder in connection.folder")
        if connection.manifest and DAY in file and DAY not in connection.folder + connection.manifest:
            raise ValueError(f"connection.manifest must have {DAY} in its name, as the files do")

    def span(self) -> tuple[date | None, date | None]:
        # No last day: what is not delivered tomorrow must be missed, not skipped.
        return min(self._days(), default=None), None

    def chunks(self, first: date, last: date) -> Iterator[tuple[date, date]]:
        sizes = dict.fromkeys(days(first, last), 0)
        there: dict[Path, list[tuple[str, int]]] = {}
        for day in sizes if first < last else ():
            folder, spelled = self._folder(day), self._spelled(day)
            if folder not in there:
                there = {folder: self._listed(folder)}
            is_daily = DAY in self._template
            sizes[day] = sum(n for name, n in there[folder] if is_daily or spelled in name)
        yield from cut(sizes, CHUNK_BYTES)

    @staticmethod
    def _listed(folder: Path) -> list[tuple[str, int]]:
        """(name, bytes) of the files in a folder, if there is one."""
        if not folder.is_dir():
            return []
        with os.scandir(folder) as found:
            return [
                (one.name, one.stat().st_size * (PACKED if Path(one.name).suffix in files.COMPRESSED else 1))
                for one in found
                if one.is_file()
            ]

    def read(self, first: date, last: date) -> Iterator[Batch]:
        for day in days(first, last):
            found = {name: self._files(name, day) for name in self.source.entities}
            if self.connection.manifest:
                self._check(day, [path for paths in found.values() for path in paths])
            for name, paths in found.items():
                for path in paths:
                    yield files.batch(name, self._read(name, path), self._label(path), day)

    def discover(self) -> dict[str, list[Found]]:
        """From the rows of the newest day that has any file of the entity; without entities, of every name there is."""
        if not self.source.entities:
            named = {stem: Entity.model_construct(key=[], columns={}, read={"file": stem}) for stem in self._stems()}
            return Files(self.source.model_copy(update={"entities": named}), self.data).discover()
        found = {}
        for name in self.source.entities:
            for day in sorted(self._days(), reverse=True):
                if paths := self._matching(name, day):
                    read, dialect = self.reads[name], self._dialect
                    found[name] = files.sample(paths[0], self._format(name), self.source.entities[name], read, dialect)
                    break
        return found

    def _stems(self) -> list[str]:
        """What the files of the newest day are called, as ``file`` names them."""
        written = re.escape(self.connection.day_format)
        for code, n in DIGITS.items():
            written = written.replace(code, rf"\d{{{n}}}")
        there = self._days()
        folder = self._folder(max(there)) if there else settings().home / self.connection.folder
        ending = re.compile(rf"(\.[^.{{]+)?\.{self.connection.format}(\.gz|\.zst)?$")
        names = [re.sub(written, DAY, path.name) for path in folder.iterdir()] if folder.is_dir() else []
        found = {ending.sub("", name) for name in names if ending.search(name) and name[0] not in "._"}
        found = {stem for stem in found if there or DAY in stem}
        if not found:
            raise SourceError(
                f"{folder} has no file *.{self.connection.format} (or .gz, .zst) of a day, neither in a folder of the "
                "day nor with the day in its name: another `format` or `day_format`?"
            )
        return sorted(found)

    # Where files are

    @property
    def _template(self) -> str:
        folder = str(settings().home / self.connection.folder)
        has_day = any(DAY in text for text in (folder, *(self._stem(name) for name in self.reads)))
        return folder if has_day else f"{folder}/{DAY}"

    def _folder(self, day: date) -> Path:
        return Path(self._template.replace(DAY, self._spelled(day)))

    def _spelled(self, day: date) -> str:
        return day.strftime(self.connection.day_format)

    def _format(self, name: str) -> str:
        return self.reads[name].format or self.connection.format

    def _stem(self, name: str) -> str:
        return self.reads[name].file or name

    def _read(self, name: str, path: Path) -> files.Rows:
        return files.read_file(path, self._format(name), self.source.entities[name], self.reads[name], self._dialect)

    @property
    def _dialect(self) -> files.Dialect:
        """Where a manifest has their checksums, files end where they should."""
        found = self.connection.dialect
        return replace(found, open_end=True) if self.connection.manifest else found

    def _label(self, path: Path) -> str:
        home = settings().home
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    def _matching(self, name: str, day: date) -> list[Path]:
        """The day's files of an entity, by name. ``SourceError`` where one is there plain and compressed."""
        folder = self._folder(day)
        stem = translate(self._stem(name).replace(DAY, self._spelled(day))).removesuffix(r"\Z")
        pattern = re.compile(rf"{stem}(\.[^.]+)?\.{self._format(name)}(\.gz|\.zst)?$")
        found = [path for path in folder.iterdir() if pattern.match(path.name)] if folder.is_dir() else []
        # A name that begins so is not finished yet.
        found = sorted(path for path in found if path.is_file() and path.name[0] not in "._")
        plain: dict[str, Path] = {}
        for path in found:
            one = path.with_suffix("") if path.suffix in files.COMPRESSED else path
            if one.name in plain:
                raise SourceError(f"{plain[one.name]} and {path.name} are the same file: keep one of them.")
            plain[one.name] = path
        return found

    def _files(self, name: str, day: date) -> list[Path]:
        found = self._matching(name, day)
        folder = self._folder(day)
        if not found and not (self.reads[name].optional and folder.is_dir()):
            stem = self._stem(name).replace(DAY, self._spelled(day))
            missing = f"{folder / stem}.{self._format(name)} (or .gz, .zst) is missing"
            if not folder.is_dir():
                missing = f"The folder {folder} is missing"
            raise SourceError(f"{missing}. {self.source.source} has not delivered {day}.")
        return found

    def _days(self) -> set[date]:
        """Every day of which there is a file or, where it has its own, a folder."""
        some, exact, found = self.connection.day_format, re.escape(self.connection.day_format), set()
        for code, n in DIGITS.items():
            some, exact = some.replace(code, "[0-9]" * n), exact.replace(code, rf"(?P<{code[1]}>\d{{{n}}})")
        folder = self._template
        for template in [folder] if DAY in folder else [f"{folder}/{self._stem(name)}.*" for name in self.reads]:
            head, _, tail = template.partition(DAY)
            pattern = re.compile(translate(head).removesuffix(r"\Z") + exact)
            for path in iglob(head + some + tail.replace(DAY, some)):
                if match := pattern.match(path):
                    with suppress(ValueError):
                        found.add(date(int(match["Y"]), int(match["m"]), int(match["d"])))
        return found

    # The manifest

    def _check(self, day: date, paths: list[Path]) -> None:
        """Refuse the day where its manifest and its files are not the same."""
        folder = self._folder(day)
        manifest = folder / self.connection.manifest.replace(DAY, self._spelled(day))
        try:
            lines = manifest.read_text().splitlines()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise SourceError(
                f"{manifest} is missing or no text (manifest_is_there): nothing of {day} is read."
            ) from error
        listed = {}
        for number, line in enumerate(lines, 1):
            match = LISTED.fullmatch(line)
            if not match:
                raise SourceError(f"{manifest}:{number} is not a line of sha256sum (manifest_is_whole): {line!r}")
            listed[folder / match[2].removeprefix("./")] = match[1].lower()
        for path in paths:
            if path not in listed:
                raise SourceError(
                    f"{path} is not listed in {manifest.name} (file_is_listed): nothing of {day} is read."
                )
        for path, expected in listed.items():
            try:
                with path.open("rb") as handle:
                    digest = hashlib.file_digest(handle, "sha256").hexdigest()
            except FileNotFoundError as error:
                raise SourceError(
                    f"{path} is listed in {manifest.name} and missing (listed_file_is_there): nothing of {day} is read."
                ) from error
            if digest != expected:
                raise SourceError(
                    f"{path} has the checksum {digest[:12]}..., not {expected[:12]}... as {manifest.name} says "
                    f"(checksum_matches): nothing of {day} is read."
                )
