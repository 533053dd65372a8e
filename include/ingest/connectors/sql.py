"""Databases, read by SQLAlchemy through dlt: the rows of the days, all of one moment, nothing written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pyarrow as pa
import sqlalchemy as sa

from include.dates import end_of, start_of
from include.ingest.connectors.base import Batch, Connector, Options, SourceError
from include.ingest.sources import Entity, Source
from include.warehouse.engine import engine


class Sql(Connector):
    """Reads tables or queries whose cursor lies in the days."""

    name = "sql"

    class Connection(Options):
        database: str
        """Suffix of a neighbour database of our own Postgres."""
        role: str
        schema_name: str
        """The schema that holds the tables."""

    class Read(Options):
        table: str | None = None
        query: str | None = None

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        read = cls.Read.model_validate(entity.read)
        if bool(read.table) == bool(read.query) or not entity.cursor:
            raise ValueError(f"entities.{name}: type sql needs `cursor` and one of `read.table` and `read.query`")

    def read(self, first: date, last: date) -> Iterator[Batch]:
        # dlt reports its use unless told not to, before it is imported.
        os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
        from dlt.sources.sql_database import sql_table

        source, schema = self.source, self.connection.schema_name
        with _snapshot(source.source, self.connection) as engine:
            for name, entity in source.entities.items():
                read = self.reads[name]
                # The columns come from the YAML, so there is nothing to reflect.
                known_columns = sa.MetaData(schema=schema)
                table = sa.Table(
                    read.table or name,
                    known_columns,
                    *(sa.Column(one, sa.Text) for one in entity.source_columns.values()),
                )
                query = _query(entity, read.query, table, first, last)
                resource = sql_table(
                    credentials=engine,
                    table=table.name,
                    schema=schema,
                    metadata=known_columns,
                    backend="pyarrow",
                    query_adapter_callback=lambda _select, _table, query=query: query,
                )
                try:
                    pieces = [_strings(piece, entity) for piece in resource]
                except Exception as error:
                    raise SourceError(f"{source.source}.{name} cannot be read: {_reason(error)}") from error
                rows = pa.concat_tables(pieces) if pieces else _strings(None, entity)
                yield Batch(name, rows, file=f"{schema}.{table.name}")


def _query(entity: Entity, query: str | None, table: sa.Table, first: date, last: date) -> sa.Select:
    """All columns as text, of the rows whose cursor lies in the days, oldest first."""
    rows: sa.FromClause = table
    if query:
        rows = sa.text(query).columns(*(sa.column(one.name, sa.Text) for one in table.c)).subquery("rows")
    assert entity.cursor is not None
    names = entity.source_columns
    cursor = sa.type_coerce(rows.c[names[entity.cursor]], sa.DateTime)
    return (
        sa.select(*(sa.cast(rows.c[of], sa.String).label(of) for of in names.values()))
        .where(cursor >= start_of(first).replace(tzinfo=None), cursor < end_of(last).replace(tzinfo=None))
        .order_by(cursor, *(rows.c[names[name]] for name in entity.key))
    )


def _strings(piece: pa.Table | None, entity: Entity) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in entity.source_columns.values()])
    if piece is None:
        return schema.empty_table()
    return piece.select(schema.names).cast(schema)


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: dlt and SQLAlchemy wrap what the database said."""
    while (cause := error.__cause__) is not None:
        error = cause
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


@contextmanager
def _snapshot(name: str, connection: Sql.Connection) -> Iterator[sa.Engine]:
    """An engine whose reads, on Postgres, all see the source as it was at one moment, and cannot write."""
    readers = engine(connection.role, database=connection.database)
    try:
        if readers.dialect.name != "postgresql":
            yield readers
            return
        with readers.connect() as holder:
            holder.exec_driver_sql("set transaction isolation level repeatable read, read only")
            snapshot: str = holder.exec_driver_sql("select pg_export_snapshot()").scalar_one()

            @sa.event.listens_for(readers, "begin")
            def _same_moment(connection: sa.Connection) -> None:
                # Past SQLAlchemy, which would declare a streaming cursor for it.
                cursor = connection.connection.cursor()
                cursor.execute("set transaction isolation level repeatable read, read only")
                cursor.execute(f"set transaction snapshot '{snapshot}'")
                cursor.close()

            yield readers
    except sa.exc.OperationalError as error:
        raise SourceError(f"The database of {name} does not answer: {_reason(error)}") from error
    finally:
        readers.dispose()
