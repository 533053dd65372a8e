"""A history dump replayed: one file an entity with the last state of everything, shown as it was known each day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from psycopg import sql

from include.ingest import files, replay
from include.ingest.connectors.base import Batch, Connector, Found, SourceError
from include.ingest.sources import Entity, Source
from include.ingest.types import in_utc
from include.settings import settings
from include.warehouse.engine import connect


class Dump(Connector):
    """Reads ``<data>/<file>.<format>[.gz|.zst]``."""

    name = "dump"

    class Connection(files.Written):
        format: Literal["csv", "jsonl", "parquet"] = "csv"

    class Read(files.Derived):
        file: str
        """Name without its ending."""
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
                view = self._named(name, self._rows(name).table)
                found += [replay.times(view.column(column).combine_chunks()) for column in columns]
        moments = np.concatenate(found)
        moments = moments[~np.isnat(moments)]
        if not len(moments):
            raise SourceError(f"Nothing in the dump of {self.source.source} says when anything happened.")
        return moments.min().astype("datetime64[D]").item(), moments.max().astype("datetime64[D]").item()

    def read(self, first: date, last: date) -> Iterator[Batch]:
        dump = {name: self._rows(name) for name in self.source.entities}
        views = {name: self._named(name, rows.table) for name, rows in dump.items()}
        known = replay.known_times({name: read.known for name, read in self.reads.items()}, views)
        for name, entity in self.source.entities.items():
            read, of, table = self.reads[name], dump[name], dump[name].table
            if read.known.by == "first_day" and len(table):
                day = catalogue_day(self.source, name, known[name][0], first)
                known[name][:] = np.datetime64(day, "us")
            if read.numbered_within:
                numbers = replay.numbered(views[name], views[name].column_names, read.numbered_within)
                table = table.append_column(entity.source_columns[entity.key[-1]], pa.array(numbers, pa.string()))
            if read.known.by == "order_lifecycle":
                for event in replay.EVENTS:
                    table = table.set_column(table.column_names.index(event), event, views[name].column(event))
                taken, known_at, rows = replay.order_versions(table, known[name], first, last)
            else:
                taken, known_at, rows = replay.take_known(table, known[name], first, last)
            yield Batch(
                name,
                taken,
                file=self._path(name).name,
                line=of.line[rows],
                known_at=known_at,
                errors=[of.errors[row] for row in rows.tolist()],
                broken={at: of.broken[row] for at, row in enumerate(rows.tolist()) if row in of.broken},
                columns=of.columns,
            )

    def discover(self) -> dict[str, list[Found]]:
        """From the first rows of each entity's file; nothing else says which files there are and what they mean."""
        if not self.source.entities:
            raise SourceError("A dump does not say when its rows became known: write the YAML by hand.")
        found = {}
        for name, entity in self.source.entities.items():
            read, connection = self.reads[name], self.connection
            found[name] = files.sample(self._path(name), connection.format, entity, read, connection.dialect)
            if read.numbered_within:
                found[name].append(Found(entity.source_columns[entity.key[-1]], "integer", is_nullable=False))
        return found

    def _rows(self, name: str) -> files.Rows:
        entity, read = self.source.entities[name], self.reads[name]
        numbered = [entity.source_columns[entity.key[-1]]] if read.numbered_within else []
        return files.read_file(
            self._path(name), self.connection.format, entity, read, self.connection.dialect, numbered
        )

    def _named(self, name: str, table: pa.Table) -> pa.Table:
        """The columns that the YAML names, by their raw names, times in UTC."""
        entity = self.source.entities[name]
        found = {}
        for column, of in entity.source_columns.items():
            if of in table.column_names:
                values = table.column(of).combine_chunks()
                is_time = entity.columns[column].type == "timestamptz"
                found[column] = in_utc(values, self.source.time_zone) if is_time else values
        return pa.table(found)

    def _path(self, name: str) -> Path:
        folder = self.data or settings().data
        if folder is None:
            raise SourceError(f"Say where the files of {self.source.source} are: --data FOLDER or EMPORIUM_DATA.")
        file = f"{self.reads[name].file}.{self.connection.format}"
        return files.find(folder, file, hint=f"It belongs to the source {self.source.source}.")


def catalogue_day(source: Source, name: str, opened: np.datetime64, first: date) -> date:
    """The day on which catalogue data are known: the first that was landed with rows, else the first that now is.

    A load that begins after the dump does (``--from``) has to bring the catalogue too; once landed it keeps its day,
    so that a rerun of any day decides the same.
    """
    table = sql.Identifier(source.raw_schema, "_landed")
    with connect("loader") as conn:
        is_prepared = conn.execute("select to_regclass(%s) is not null", (table.as_string(conn),)).fetchone() == (True,)
        landed = (
            conn.execute(
                sql.SQL("select min(partition_on) from {} where entity = %s and n_rows > 0").format(table), (name,)
            ).fetchone()
            if is_prepared
            else None
        )
    return landed[0] if landed and landed[0] else max(first, opened.astype("datetime64[D]").item())
