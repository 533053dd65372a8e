"""The till of a corner shop: a SQLite file that the cash desk writes, with a table for each kind of thing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa

from include.ingest.connectors import Batch, Connector, Found, Options, SourceError
from include.ingest.sources import Entity, Source

TYPES = {"INTEGER": "bigint", "REAL": "numeric(18,4)", "BOOLEAN": "boolean", "DATE": "date", "DATETIME": "timestamptz"}


class Till(Connector):
    """Rows of the till's tables, by the time at which the cash desk wrote them."""

    name = "till"

    class Connection(Options):
        file: Path
        """The SQLite file. It is opened read-only."""
        page_size: int = 1000

    class Read(Options):
        table: str

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        if not entity.cursor:
            raise ValueError(f"entities.{name}: type till needs `cursor`, the time at which a row was written")

    def __enter__(self) -> Till:
        with self._said_plainly():
            self.db = sqlite3.connect(f"{self.connection.file.absolute().as_uri()}?mode=ro", uri=True)
            self.db.execute("select 1 from sqlite_master").fetchone()
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def read(self, first: date, last: date) -> Iterator[Batch]:
        for name, entity in self.source.entities.items():
            table, cursor = self.reads[name].table, entity.source_columns[entity.cursor]
            # After the last row of the page before, not at an offset: rows that appear meanwhile shift nothing.
            # rowid makes the order total where several rows have one time.
            query = (
                f'select rowid, "{cursor}", * from "{table}" where "{cursor}" >= ? and "{cursor}" < ? '
                f'and ("{cursor}", rowid) > (?, ?) order by "{cursor}", rowid limit ?'
            )
            after = ("", 0)
            while True:
                # A day more on each side, for the till's clock has its own zone: Emporium drops rows of other days.
                window = ((first - timedelta(days=1)).isoformat(), (last + timedelta(days=2)).isoformat())
                with self._said_plainly():
                    found = self.db.execute(query, (*window, *after, self.connection.page_size))
                    columns, rows = [one[0] for one in found.description], found.fetchall()
                yield Batch(name, _strings(columns[2:], [row[2:] for row in rows]), file=f"{table} of the till")
                if len(rows) < self.connection.page_size:
                    break
                after = (rows[-1][1], rows[-1][0])

    def keys(self, entity: str) -> pa.Table:
        of, wanted = self.source.entities[entity], self.reads[entity].table
        names = ", ".join(f'"{of.source_columns[key]}"' for key in of.key)
        with self._said_plainly():
            return _strings(of.key, self.db.execute(f'select {names} from "{wanted}"').fetchall())

    def discover(self) -> dict[str, list[Found]]:
        with self._said_plainly():
            tables = self.db.execute("select name from sqlite_master where type = 'table'").fetchall()
            return {
                table: [
                    Found(name, TYPES.get(kind.upper(), "text"), not (required or key), bool(key))
                    for _, name, kind, required, _, key in self.db.execute(f'pragma table_info("{table}")')
                ]
                for (table,) in tables
            }

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        """Turns what SQLite says into the one error that Emporium shows."""
        try:
            yield
        except sqlite3.Error as error:
            raise SourceError(f"The till of {self.source.source} cannot be read: {error}") from error


def _strings(columns: list[str], rows: list[tuple]) -> pa.Table:
    by_column = zip(*rows, strict=True) if rows else [()] * len(columns)
    texts = [pa.array([None if v is None else str(v) for v in values], pa.string()) for values in by_column]
    return pa.table(texts, names=columns)
