"""Files that a source delivers once a business day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from include.dates import days, parse_day
from include.ingest import files, replay
from include.ingest.connectors.base import Batch, Connector, Options
from include.settings import settings

DAY = np.timedelta64(1, "D")
TICK = np.timedelta64(1, "us")


class Files(Connector):
    """Reads ``<folder>/YYYY-MM-DD/<file>.<format>[.gz|.zst]``, or ``<folder>/YYYY-MM-DD.<format>``."""

    name = "files"

    class Connection(Options):
        folder: str
        """Absolute, or under the home."""
        format: Literal["csv", "jsonl"] = "csv"

    class Read(Options):
        file: str | None = None
        """Name without its ending; none: the day's file holds this one entity."""
        optional: bool = False
        """A day without the file is a day without rows."""

    @property
    def folder(self) -> Path:
        """Where the days are."""
        return settings().home / self.connection.folder

    def span(self) -> tuple[date | None, date | None]:
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            try:
                found.append(parse_day(path.name.split(".")[0]))
            except ValueError:
                continue
        # No last day: what is not delivered tomorrow must be missed, not skipped.
        return min(found, default=None), None

    def read(self, first: date, last: date) -> Iterator[Batch]:
        reader = files.read_csv if self.connection.format == "csv" else files.read_jsonl
        for name, entity in self.source.entities.items():
            wanted = {of: of for of in entity.source_columns.values()}
            for day in days(first, last):
                path = self._path(name, day)
                if path is None:
                    continue
                lines = reader(path, wanted, f"{self.connection.folder}/{path.relative_to(self.folder)}")
                table = pa.table({of: pa.array(values, pa.string()) for of, values in lines.columns.items()})
                start = np.datetime64(day, "us")
                known_at = np.full(len(table), start)
                if entity.cursor:
                    said = replay.times(table.column(entity.source_columns[entity.cursor]).combine_chunks())
                    # What a day's file says was known on that day, whatever its clock says.
                    known_at = np.where(np.isnat(said), start, np.clip(said, start, start + DAY - TICK))
                yield Batch(
                    name,
                    table,
                    file=lines.files,
                    line=np.array(lines.numbers, "int64"),
                    partition_on=np.full(len(table), np.datetime64(day)),
                    known_at=known_at,
                    errors=lines.errors,
                    broken=lines.broken,
                    columns=lines.header,
                )

    def _path(self, name: str, day: date) -> Path | None:
        read, ending = self.reads[name], self.connection.format
        where, what = (self.folder / day.isoformat(), read.file) if read.file else (self.folder, day.isoformat())
        try:
            return files.find(where, f"{what}.{ending}", hint=f"{self.source.source} has not delivered {day}.")
        except FileNotFoundError:
            if read.optional and where.is_dir():
                return None
            raise
