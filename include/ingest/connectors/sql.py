"""Databases, read by SQLAlchemy through dlt: MariaDB, MySQL and Postgres, all of one moment, nothing written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from pydantic import Field, model_validator

from include.dates import cut, days, end_of, start_of
from include.ingest.connectors.base import Batch, Connector, Found, Options, SourceError
from include.ingest.pseudonym import mask_emails
from include.ingest.sources import Entity, Source
from include.secrets import given
from include.warehouse.engine import dsn

CHUNK_ROWS = 500_000
"""Rows of all entities together that are landed at a time; a single day is never split."""

DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}

# Not {4}: that is how often a part of a regular expression occurs.
PLACEHOLDER = re.compile(r"\{([a-z_]\w*)\}")
SLACK = timedelta(hours=3)
"""By how much a window of local times is wider than the days in UTC: a changed clock can move a row by less."""

ZERO = "0000-00-00%"
"""How MariaDB and MySQL spell a date that is none."""

SECRET_NAMES = re.compile(r"pass|salt|token|secret|hash|session", re.IGNORECASE)
"""Columns of which no samples are shown."""


@dataclass(frozen=True)
class _Shape:
    """What an entity's table or query yields."""

    rows: sa.FromClause
    columns: dict[str, str]
    """Name -> ``zoned`` (a moment), ``time`` (a date or a time without a zone) or ``other``."""
    label: str
    hints: tuple[str, ...] = ()


class Sql(Connector):
    """Reads tables or queries whose cursor lies in the days, or whole tables as they are (``snapshot``).

    One connection in one read-only transaction serves a whole command, so all entities and chunks of days are of one
    moment and no row is locked. Times without a zone are in the source's ``time_zone``; the window is widened by
    ``SLACK`` and the core, which knows that zone, drops what lies outside.
    """

    name = "sql"
    looks_back = True

    class Connection(Options):
        dsn_secret: str | None = Field(None, description="Secret that holds the SQLAlchemy URL.")
        database: str | None = Field(None, description="Or: suffix of a neighbour database of our own Postgres,")
        role: str | None = Field(None, description="and the role that reads it.")
        schema_name: str | None = Field(None, description="Schema of the tables; default the connection's own.")
        names: dict[str, str] = Field({}, description="What {placeholders} in `table` and `query` stand for.")

        @model_validator(mode="after")
        def _one_way(self) -> Sql.Connection:
            if bool(self.dsn_secret) == bool(self.database and self.role) or bool(self.database) != bool(self.role):
                raise ValueError("give `dsn_secret`, or `database` and `role` of our own Postgres")
            for name in self.names:
                try:
                    value = self.filled(f"{{{name}}}")
                except KeyError as error:
                    raise ValueError(f"names.{name}: {error} is not among connection.names") from None
                if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*|", value):
                    raise ValueError(f"names.{name}: {value!r} is not the name of a table or column")
            return self

        def filled(self, text: str) -> str:
            """``text`` with names for its {placeholders}; a name may use another."""
            once = PLACEHOLDER.sub(lambda found: self.names[found.group(1)], text)
            return PLACEHOLDER.sub(lambda found: self.names[found.group(1)], once)

    class Read(Options):
        table: str | None = None
        query: str | None = None
        changed: str | None = Field(
            None, description="Column with the time of the last change: the row comes again on that day."
        )
        snapshot: bool = Field(False, description="The whole table, as a version of the first day that is landed.")
        optional: bool = Field(False, description="The database may lack the table: then there are no rows.")

    def __init__(self, source: Source, data: Any = None) -> None:
        super().__init__(source, data)
        self._opened: sa.Engine | None = None
        self._is_mysql = False
        self._password = ""
        self._first: date | None = None
        self._last: date | None = None
        self._shapes: dict[str, _Shape | None] = {}

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        read = cls.Read.model_validate(entity.read)
        where = f"entities.{name}"
        if bool(read.table) == bool(read.query):
            raise ValueError(f"{where}: type sql needs one of `read.table` and `read.query`")
        if bool(entity.cursor) == read.snapshot:
            raise ValueError(f"{where}: type sql needs `cursor`, or `read.snapshot: true` for a table without one")
        if read.changed is not None and (read.snapshot or read.changed not in entity.columns):
            raise ValueError(f"{where}.read.changed: name a column of an entity with a cursor")
        if read.optional and not read.table:
            raise ValueError(f"{where}.read.optional: only a `table` may be lacking")
        known = cls.Connection.model_validate(source.connection).names
        for one in PLACEHOLDER.findall(f"{read.table or ''} {read.query or ''}"):
            if one not in known:
                raise ValueError(f"{where}.read: {{{one}}} is not among connection.names")

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.dispose()
            self._opened = None

    def is_snapshot(self, entity: str) -> bool:
        return bool(self.reads[entity].snapshot)

    # --- reading ---------------------------------------------------------------------------------

    def chunks(self, first: date, last: date) -> Iterator[tuple[date, date]]:
        self._first, self._last = first, last
        counts = dict.fromkeys(days(first, last), 0)
        if first < last:
            for name in self.source.entities:
                self._count(name, counts)
        yield from cut(counts, CHUNK_ROWS)

    def _count(self, name: str, counts: dict[date, int]) -> None:
        """Add an entity's rows per day; by the source's own clock, which is near enough to share out the work."""
        shape = self._shape(name)
        if shape is None or self.is_snapshot(name):
            return
        for column, _ in self._cursors(name):
            day = sa.cast(shape.rows.c[column], sa.Date)
            query = (
                sa.select(day, sa.func.count())
                .where(self._window(shape, column, min(counts), max(counts)))
                .group_by(day)
            )
            with self._engine().connect() as connection:
                for found, n in self._asked(name, lambda query=query: connection.execute(query).all()):
                    if found is not None:
                        counts[min(max(found, min(counts)), max(counts))] += n

    def read(self, first: date, last: date) -> Iterator[Batch]:
        for name, entity in self.source.entities.items():
            shape = self._shape(name)
            if shape is None:
                continue
            columns = self._wanted(name, entity, shape)
            if self.is_snapshot(name):
                if first != (self._first or first):
                    continue
                rows = self._rows(name, self._select(name, shape, columns, None))
                # What it says now, no matter since when. Of a history it is the catalogue: known from the first day on.
                moment = np.datetime64(end_of(first).replace(tzinfo=None), "us") - np.timedelta64(1, "us")
                known_at = np.full(rows.num_rows, moment)
                yield Batch(name, rows, file=shape.label, columns=list(shape.columns), known_at=known_at)
                continue
            for column, cursor in self._cursors(name):
                window = self._window(shape, column, first, last)
                if cursor == entity.cursor and last == (self._last or last):
                    window = window | self._is_none(shape, column)
                rows = self._rows(name, self._select(name, shape, columns, column, window))
                yield Batch(name, rows, file=shape.label, columns=list(shape.columns), cursor=cursor)

    def _cursors(self, name: str) -> list[tuple[str, str]]:
        """(name in the source, raw name) of the columns that say when a row, or its change, became known."""
        entity, read = self.source.entities[name], self.reads[name]
        return [(entity.source_columns[one], one) for one in (entity.cursor, read.changed) if one]

    def _wanted(self, name: str, entity: Entity, shape: _Shape) -> list[str]:
        """Columns to select: those of the YAML that are there and, where new ones may go on, all others too."""
        wanted = list(dict.fromkeys(entity.source_columns.values()))
        for raw, of in entity.source_columns.items():
            if of not in shape.columns and not entity.columns[raw].optional:
                raise SourceError(
                    f"{self.source.source}.{name}: {shape.label} lacks the column {of}; it has: "
                    f"{', '.join(shape.columns)}. If this version of the shop may lack it, say `optional: true`."
                )
        if entity.schema_policy != "freeze":
            wanted += [one for one in shape.columns if one not in wanted and one not in entity.ignore]
        return [one for one in wanted if one in shape.columns]

    def _select(
        self, name: str, shape: _Shape, columns: list[str], cursor: str | None, where: Any = None
    ) -> sa.Select[Any]:
        """Columns as text, oldest first."""
        entity = self.source.entities[name]
        query = sa.select(*(self._text(shape, one).label(one) for one in columns))
        for hint in shape.hints:
            query = query.prefix_with(hint)
        if where is not None:
            query = query.where(where)
        order = [cursor] if cursor else []
        order += [entity.source_columns[one] for one in entity.key]
        return query.order_by(*(shape.rows.c[one] for one in order))

    def _text(self, shape: _Shape, column: str) -> sa.ColumnElement[Any]:
        text = sa.cast(shape.rows.c[column], sa.String)
        kind = shape.columns[column]
        if not self._is_mysql or kind == "other":
            return text
        # Times of type TIMESTAMP are moments: they are shown in the session's zone, which is UTC.
        whole = sa.func.concat(text, "+00:00") if kind == "zoned" else text
        return sa.case((text.like(ZERO), None), else_=whole)

    def _window(self, shape: _Shape, column: str, first: date, last: date) -> sa.ColumnElement[bool]:
        begin, end = start_of(first), end_of(last)
        is_zoned = shape.columns[column] == "zoned"
        if not is_zoned and self.source.time_zone != "UTC":
            zone = ZoneInfo(self.source.time_zone)
            begin, end = (begin - SLACK).astimezone(zone), (end + SLACK).astimezone(zone)
        if self._is_mysql or not is_zoned:
            begin, end = begin.replace(tzinfo=None), end.replace(tzinfo=None)
        known_at: sa.ColumnElement[datetime] = sa.type_coerce(
            shape.rows.c[column], sa.DateTime(timezone=begin.tzinfo is not None)
        )
        return sa.and_(known_at >= begin, known_at < end)

    def _is_none(self, shape: _Shape, column: str) -> sa.ColumnElement[bool]:
        """The row does not say when: no window would ever find it, so the newest day takes it."""
        is_null = shape.rows.c[column].is_(None)
        if self._is_mysql and shape.columns[column] != "other":
            return sa.or_(is_null, shape.rows.c[column] == sa.literal_column("0"))
        return is_null

    def _rows(self, name: str, query: sa.Select[Any]) -> pa.Table:
        """The query's rows as strings, fetched by a server-side cursor."""
        # Before it is imported dlt has to be told not to report its use, nor to look for settings in Airflow, which
        # takes seconds to import.
        os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "PROVIDERS__ENABLE_AIRFLOW_SECRETS": "false"}
        from dlt.sources.sql_database import sql_table

        # The columns come from the query, so there is nothing to reflect.
        known = sa.MetaData()
        names = [str(one.name) for one in query.selected_columns]
        table = sa.Table("rows", known, *(sa.Column(one, sa.Text) for one in names))
        resource = sql_table(
            credentials=self._engine(),
            table=table.name,
            metadata=known,
            backend="pyarrow",
            query_adapter_callback=lambda _select, _table: query,
        )
        schema = pa.schema([(one, pa.string()) for one in names])
        return pa.concat_tables(
            [schema.empty_table(), *self._asked(name, lambda: [_strings(piece, schema) for piece in resource])]
        )

    def _asked(self, name: str, ask: Any) -> Any:
        try:
            return ask()
        except Exception as error:
            raise SourceError(f"{self.source.source}.{name} cannot be read: {self._reason(error)}") from None

    # --- what is there ---------------------------------------------------------------------------

    def _shape(self, name: str) -> _Shape | None:
        """The entity's columns as the database has them; None for an optional table that it lacks."""
        if name not in self._shapes:
            self._shapes[name] = self._asked(name, lambda: self._described(name))
        return self._shapes[name]

    def _described(self, name: str) -> _Shape | None:
        read, engine, schema = self.reads[name], self._engine(), self.connection.schema_name
        text = self.connection.filled(read.table or read.query)
        if read.table and not sa.inspect(engine).has_table(text, schema=schema):
            if read.optional:
                return None
            raise SourceError(f"there is no table {text}; check connection.names and connection.schema_name")

        def rows(*columns: str) -> sa.FromClause:
            if read.table:
                return sa.table(text, *map(sa.column, columns), schema=schema)
            return sa.text(text).columns(*map(sa.column, columns)).subquery("source_rows")

        with engine.connect() as connection:
            found = connection.execute(sa.select(sa.text("*")).select_from(rows()).where(sa.false()))
            columns = {one[0]: self._kind(one[1]) for one in found.cursor.description}
        label = f"{schema or engine.url.database}.{text if read.table else name}"
        return _Shape(rows(*columns), columns, label, self._hints(text))

    def _kind(self, code: Any) -> str:
        """What a driver's type code stands for, see ``_Shape``: MySQL's field types, Postgres's object ids."""
        if self._is_mysql:
            return {7: "zoned", 10: "time", 12: "time", 14: "time"}.get(code, "other")
        return {1184: "zoned", 1114: "time", 1082: "time"}.get(code, "other")

    def _hints(self, text: str) -> tuple[str, ...]:
        """MyISAM, which OpenCart 3 uses, knows no snapshot and locks a table while it is read: be quick at least."""
        return ("SQL_BUFFER_RESULT",) if self._without_snapshot(text) else ()

    def _without_snapshot(self, text: str) -> list[str]:
        """The tables in a query whose storage engine cannot show them as they were at one moment."""
        if not self._is_mysql:
            return []
        with self._engine().connect() as connection:
            found: Any = connection.exec_driver_sql(
                "select table_name from information_schema.tables where table_schema = database() "
                "and engine in ('MyISAM', 'Aria')"
            ).scalars()
            return sorted(set(re.findall(r"[\w$]+", text)) & set(found))

    def findings(self) -> list[str]:
        text = " ".join(self.connection.filled(one.table or one.query) for one in self.reads.values())
        self._engine()
        tables = self._asked("its storage engines", lambda: self._without_snapshot(text))
        if not tables:
            return []
        return [
            f"{', '.join(tables)}: of engine MyISAM or Aria, which cannot show a table as it was at one moment. "
            "Changes made while it is read may be seen in part, and writers wait meanwhile: load when the shop is "
            "quiet, or convert the tables to InnoDB."
        ]

    def keys(self, entity: str) -> pa.Table:
        shape = self._shape(entity)
        names = {self.source.entities[entity].source_columns[one]: one for one in self.source.entities[entity].key}
        if shape is None:
            return pa.table({one: pa.array([], pa.string()) for one in names.values()})
        found = self._rows(entity, self._select(entity, shape, list(names), None))
        return found.rename_columns([names[one] for one in found.column_names])

    def discover(self) -> dict[str, list[Found]]:
        """Table (or the entity that reads it) -> columns, with a few samples; none of columns that look secret."""
        schema = self.connection.schema_name
        entities = {self.connection.filled(read.table): name for name, read in self.reads.items() if read.table}
        found: dict[str, list[Found]] = {}
        try:
            inspector = sa.inspect(self._engine())
            for table in sorted(inspector.get_table_names(schema=schema)):
                keys = set(inspector.get_pk_constraint(table, schema=schema)["constrained_columns"])
                columns = inspector.get_columns(table, schema=schema)
                samples = self._samples(table, [one["name"] for one in columns])
                found[entities.get(table, table)] = [
                    Found(
                        one["name"], _column_type(one["type"]), bool(one["nullable"]), one["name"] in keys,
                        samples.get(one["name"], ()),
                    )
                    for one in columns
                ]  # fmt: skip
        except sa.exc.SQLAlchemyError as error:
            raise SourceError(f"{self.source.source} cannot be looked at: {self._reason(error)}") from None
        return found

    def _samples(self, table: str, columns: list[str]) -> dict[str, tuple[str, ...]]:
        shown = [one for one in columns if not SECRET_NAMES.search(one)]
        rows = sa.table(table, *map(sa.column, shown), schema=self.connection.schema_name)
        with self._engine().connect() as connection:
            found = connection.execute(sa.select(*(sa.cast(one, sa.String) for one in rows.c)).limit(3)).all()
        values = {name: mask_emails(pa.array([row[at] for row in found], pa.string())) for at, name in enumerate(shown)}
        return {
            name: tuple(dict.fromkeys(one.as_py()[:60] for one in texts if one.as_py()))
            for name, texts in values.items()
        }

    # --- the connection --------------------------------------------------------------------------

    def _engine(self) -> sa.Engine:
        """The engine of the one connection, whose transaction lasts until the end of the command."""
        if self._opened is None:
            url = self._url()
            self._password = url.password or ""
            self._is_mysql = url.get_backend_name() in ("mysql", "mariadb")
            engine = sa.create_engine(
                url,
                # dlt asks the engine for connections and gives them back: it always gets the same one, and for
                # SQLAlchemy that one is in autocommit, so that nobody ends the transaction that we began by hand.
                poolclass=sa.StaticPool,
                pool_reset_on_return=None,
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
                hide_parameters=True,
                connect_args={"connect_timeout": 10},
            )
            sa.event.listen(engine, "connect", _begin_mysql if self._is_mysql else _begin_postgres)
            try:
                with engine.connect():
                    self._opened = engine
            except (sa.exc.SQLAlchemyError, OSError) as error:
                engine.dispose()
                raise SourceError(
                    f"The database of {self.source.source} does not answer: {self._reason(error)}"
                ) from None
        return self._opened

    def _url(self) -> sa.URL:
        if self.connection.dsn_secret is None:
            text = dsn(self.connection.role, database=self.connection.database)
        else:
            try:
                text = given(self.connection.dsn_secret)
            except ValueError as error:
                raise SourceError(f"{self.source.source}: {error}") from None
        where = f"{self.source.source}: the secret {self.connection.dsn_secret}"
        try:
            url = sa.make_url(text)
        except sa.exc.ArgumentError:
            raise SourceError(
                f"{where} is not a URL such as mysql+pymysql://reader:password@shop.example:3306/shop"
            ) from None
        if "@" in (url.host or "") or "@" in (url.database or ""):
            raise SourceError(f"{where} has an @ too many: write those of the password as %40")
        backend = url.get_backend_name()
        if backend not in DRIVERS:
            raise SourceError(f"{where} is for {backend}; type sql reads MariaDB, MySQL and Postgres")
        url = url.set(drivername=DRIVERS[backend])
        return url if "postgresql" in url.drivername else url.update_query_dict({"charset": "utf8mb4"})

    def _reason(self, error: BaseException) -> str:
        """The first line of the innermost cause, without the password: dlt and SQLAlchemy wrap what was said."""
        while (cause := error.__cause__) is not None:
            error = cause
        said = getattr(error, "orig", None) or error
        # pymysql's errors are (number, text).
        text = str(said.args[1] if len(getattr(said, "args", ())) == 2 else said).strip()
        for secret in {self._password, quote(self._password, safe="")} - {""}:
            text = text.replace(secret, "***")
        return text.splitlines()[0] if text else type(error).__name__


def _begin_mysql(connection: Any, _record: Any) -> None:
    """One read-only snapshot of all InnoDB tables. Zero dates are read as they are, waits for our work are long."""
    statements = [
        "set session sql_mode = ''",
        "set session time_zone = '+00:00'",
        # Between two pieces we write to the lake, and the shop's server must not lose patience.
        "set session net_write_timeout = 3600, wait_timeout = 86400",
        "set session transaction isolation level repeatable read",
        "start transaction with consistent snapshot, read only",
    ]
    if "MariaDB" in connection.get_server_info():
        statements.insert(3, "set session idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0")
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _begin_postgres(connection: Any, _record: Any) -> None:
    connection.execute("set timezone = 'UTC'")
    connection.execute("set datestyle = 'ISO'")
    connection.execute("begin isolation level repeatable read, read only")
    # The snapshot is taken by the first query, not by its beginning.
    connection.execute("select 1")


def _strings(piece: pa.Table, schema: pa.Schema) -> pa.Table:
    # dlt leaves out a column that has nothing but nulls in a piece.
    return pa.table(
        {
            one: piece[one].cast(pa.string()) if one in piece.column_names else pa.nulls(len(piece), pa.string())
            for one in schema.names
        },
        schema=schema,
    )


def _column_type(kind: sa.types.TypeEngine[Any]) -> str:
    """The raw type that holds every value of a column; text where in doubt."""
    if isinstance(kind, sa.Boolean):
        return "boolean"
    if isinstance(kind, sa.BigInteger) or getattr(kind, "unsigned", False):
        return "bigint"
    if isinstance(kind, sa.Integer):
        return "integer"
    if isinstance(kind, sa.Numeric):
        return "numeric(18,4)"
    if isinstance(kind, sa.DateTime):
        return "timestamptz"
    return "date" if isinstance(kind, sa.Date) else "text"
