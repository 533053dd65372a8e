"""A history dump replayed: one CSV file an entity with the last state of everything, shown as it was known each day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from include.ingest import files, replay
from include.ingest.connectors.base import Batch, Connector, Options, SourceError
from include.ingest.sources import Entity, Source
from include.settings import settings
from include.warehouse.engine import connect


class Dump(Connector):
    """Reads ``<data>/<file>.csv[.gz|.zst]``."""

    name = "dump"

    class Read(Options):
        file: str
        known: replay.Known
        numbered_within: str | None = None
        """Fill the last key column with the line's position in this column's group."""

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        read = cls.Read.model_validate(entity.read)
        for field, column in (("known.column", read.known.column), ("numbered_within", read.numbered_within)):
            if column and column not in entity.columns:
                raise ValueError(f"entities.{name}.read.{field} names {column}, which is not among the columns")
        if read.known.entity and read.known.entity not in source.entities:
            raise ValueError(f"entities.{name}.read.known.entity: there is no entity {read.known.entity}")

    def span(self) -> tuple[date | None, date | None]:
        found = []
        for name, read in self.reads.items():
            columns = list(replay.EVENTS) if read.known.by == "order_lifecycle" else [read.known.column or ""]
            if columns != [""]:
                wanted = self.source.entities[name].source_columns
                path = self._path(name)
                lines = files.read_csv(path, {column: wanted[column] for column in columns}, path.name)
                found += [replay.times(pa.array(lines.columns[column], pa.string())) for column in columns]
        moments = np.concatenate(found)
        moments = moments[~np.isnat(moments)]
        if not len(moments):
            raise SourceError(f"Nothing in the dump of {self.source.source} says when anything happened.")
        return moments.min().astype("datetime64[D]").item(), moments.max().astype("datetime64[D]").item()

    def read(self, first: date, last: date) -> Iterator[Batch]:
        lines: dict[str, files.Lines] = {}
        tables: dict[str, pa.Table] = {}
        for name in self.source.entities:
            path = self._path(name)
            lines[name] = files.read_csv(path, self._wanted(name), path.name)
            tables[name] = pa.table(
                {column: pa.array(values, pa.string()) for column, values in lines[name].columns.items()}
            )
        known = replay.known_times({name: read.known for name, read in self.reads.items()}, tables)
        for name, entity in self.source.entities.items():
            read, table, of = self.reads[name], tables[name], lines[name]
            if read.known.by == "first_day" and len(table):
                day = _catalogue_day(self.source, name, known[name][0], first)
                known[name][:] = np.datetime64(day, "us")
            if read.numbered_within:
                numbers = replay.numbered(table, table.column_names, read.numbered_within)
                table = table.append_column(entity.key[-1], pa.array(numbers, pa.string()))
            if read.known.by == "order_lifecycle":
                taken, known_at, rows = replay.order_versions(table, known[name], first, last)
            else:
                taken, known_at, rows = replay.take_known(table, known[name], first, last)
            yield Batch(
                name,
                taken.rename_columns([entity.source_columns[column] for column in taken.column_names]),
                file=self._path(name).name,
                line=np.array(of.numbers, "int64")[rows],
                known_at=known_at,
                errors=[of.errors[row] for row in rows.tolist()],
                broken={at: of.broken[row] for at, row in enumerate(rows.tolist()) if row in of.broken},
                columns=of.header,
            )

    def _wanted(self, name: str) -> dict[str, str]:
        """Raw name -> name in the file, without the column that is numbered here."""
        entity = self.source.entities[name]
        made = {entity.key[-1]} if self.reads[name].numbered_within else set()
        return {column: of for column, of in entity.source_columns.items() if column not in made}

    def _path(self, name: str) -> Path:
        folder = self.data or settings().data
        if folder is None:
            raise FileNotFoundError(f"Say where the files of {self.source.source} are: --data FOLDER or EMPORIUM_DATA.")
        return files.find(
            folder, f"{self.reads[name].file}.csv", hint=f"It belongs to the source {self.source.source}."
        )


def _catalogue_day(source: Source, name: str, opened: np.datetime64, first: date) -> date:
    """The day on which catalogue data are known: the first that was loaded, else the first that now is.

    A load that begins after the dump does (``--from``) has to bring the catalogue too; once loaded it keeps its day,
    so that a rerun of any day decides the same.
    """
    with connect("loader") as conn:
        loaded = conn.execute(
            "select min(partition_on) from ops.load_audit where source = %s and entity = %s and n_in > 0",
            (source.source, name),
        ).fetchone()
    return loaded[0] if loaded and loaded[0] else max(first, opened.astype("datetime64[D]").item())
