"""The tables that ingest writes in Postgres, made from the source YAMLs. All belong to the role ``loader``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import psycopg
from psycopg import sql

from include.ingest.sources import Entity, Source, sources
from include.warehouse.engine import connect

ADDED = {
    "partition_on": "date",
    "known_at": "timestamp with time zone",
    "_file": "text",
    "_line": "bigint",
    "_deleted": "boolean",
}
"""What ingest adds to a source's columns."""

SESSIONS = {
    "session_id": "text not null",
    "marketplace": "text not null",
    "visitor_id": "text not null",
    "customer_id": "text",
    "session_on": "date not null",
    "started_at": "timestamp with time zone not null",
    "ended_at": "timestamp with time zone not null",
    "n_events": "integer not null",
    "n_product_views": "integer not null",
    "n_cart_adds": "integer not null",
    "n_purchases": "integer not null",
    "campaign": "text",
    "is_bot": "boolean not null",
    "known_at": "timestamp with time zone not null",
}
"""Columns of ``raw_<source>.sessions``, which ``spark_jobs.sessions`` makes of a source's events."""

PG_TYPES = {"timestamptz": "timestamp with time zone", "numeric(18,4)": "numeric(18,4)"}


def prepare() -> list[str]:
    """Make the raw and quarantine tables of all sources, and add columns that a YAML gained; returns the raw tables.

    ``ValueError`` when a YAML changed the type of a column that has data: that is a migration, not a setting.
    """
    made = []
    with connect("loader") as conn:
        conn.execute("select pg_advisory_xact_lock(hashtext('ingest.prepare'))")
        for source in sources():
            schema = sql.Identifier(source.raw_schema)
            conn.execute(sql.SQL("create schema if not exists {}").format(schema))
            conn.execute(sql.SQL("grant usage on schema {} to transformer, analyst").format(schema))
            conn.execute(
                sql.SQL(
                    """create table if not exists {}._landed (
                         entity text, partition_on date, n_rows bigint not null, n_broken bigint not null,
                         batch text not null, landed_at timestamptz not null default now(),
                         primary key (entity, partition_on))"""
                ).format(schema)
            )
            _rename_files(conn, source)
            conn.execute(sql.SQL("alter table {}._landed add column if not exists unnamed text[]").format(schema))
            for name in source.entities:
                _make_quarantine(conn, name)
            for name, entity in source.raw_entities.items():
                _make_raw(conn, source, name, entity)
                made.append(f"{source.raw_schema}.{name}")
            if len(source.raw_entities) < len(source.entities):
                _make_sessions(conn, source)
                made.append(f"{source.raw_schema}.sessions")
            conn.execute(sql.SQL("grant select on all tables in schema {} to transformer, analyst").format(schema))
    return made


def _rename_files(conn: psycopg.Connection, source: Source) -> None:
    """An earlier Emporium named a batch by its files: such days are no longer what was landed, and are landed again."""
    if conn.execute(
        "select 1 from pg_attribute where attrelid = to_regclass(%s) and attname = 'files' and not attisdropped",
        (f"{source.raw_schema}._landed",),
    ).fetchone():
        table = sql.Identifier(source.raw_schema, "_landed")
        conn.execute(sql.SQL("alter table {} rename column files to batch").format(table))


def columns(entity: Entity) -> dict[str, str]:
    """Raw column -> Postgres type, in the table's order."""
    return {name: PG_TYPES.get(column.type, column.type) for name, column in entity.columns.items()} | ADDED


def _make_raw(conn: psycopg.Connection, source: Source, name: str, entity: Entity) -> None:
    there: dict[str, str] = dict(
        conn.execute(
            """select attname, format_type(atttypid, atttypmod) from pg_attribute
               where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped""",
            (f'{source.raw_schema}."{name}"',),
        ).fetchall()
    )
    table = sql.Identifier(source.raw_schema, name)
    wanted = columns(entity)
    if not there:
        key = sql.SQL(", ").join(sql.Identifier(one) for one in (*entity.key, "partition_on"))
        conn.execute(
            sql.SQL("create table {} ({}, primary key ({}))").format(
                table, sql.SQL(", ").join(_column(column, kind) for column, kind in wanted.items()), key
            )
        )
        conn.execute(sql.SQL("create index on {} (partition_on)").format(table))
        conn.execute(
            sql.SQL("comment on table {} is {}").format(
                table, sql.Literal(f"Grain: {', '.join(entity.key)}, partition_on: one version per business day")
            )
        )
        there = wanted
    for column, kind in wanted.items():
        if column not in there:
            conn.execute(sql.SQL("alter table {} add column {}").format(table, _column(column, kind)))
        elif there[column] != kind:
            raise ValueError(
                f"{source.source}.yaml: {name}.{column} is {kind}, but {source.raw_schema}.{name} holds "
                f"{there[column]}: write a migration, or give the column another name."
            )
    # dbt reads the rows of touched keys; the primary key finds them where the key leads it.
    everybody = [one for other in source.entities.values() for one in other.changes.values()]
    by = {one.column for one in entity.changes.values()} | {
        one.via[1] for one in everybody if one.via and one.via[0] == name
    }
    for column in sorted(by - {entity.key[0]}):
        conn.execute(
            sql.SQL("create index if not exists {} on {} ({})").format(
                sql.Identifier(f"{name}_{column}_idx"), table, sql.Identifier(column)
            )
        )


def _make_sessions(conn: psycopg.Connection, source: Source) -> None:
    table = sql.Identifier(source.raw_schema, "sessions")
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in SESSIONS.items()
    )
    # A visitor's day, which is replaced as a whole, leads the key.
    conn.execute(
        sql.SQL("create table if not exists {} ({}, primary key (session_on, visitor_id, session_id))").format(
            table, columns
        )
    )
    conn.execute(sql.SQL("comment on table {} is 'Grain: session; what is known of it now'").format(table))


def _column(name: str, kind: str) -> sql.Composed:
    # Only what ingest adds is not null here; the gate speaks for the rest.
    suffix = " not null" if name in ADDED else ""
    suffix += " default false" if name == "_deleted" else ""
    return sql.SQL("{} {}{}").format(sql.Identifier(name), sql.SQL(kind), sql.SQL(suffix))


def _make_quarantine(conn: psycopg.Connection, name: str) -> None:
    conn.execute(
        sql.SQL(
            """create table if not exists quarantine.{} (
                 source text not null,
                 file text not null,
                 line bigint not null,
                 rule text not null,
                 payload text,
                 partition_on date not null,
                 rules text[] not null,
                 quarantined_at timestamptz not null default now(),
                 columns text[] not null default '{{}}',
                 original text,
                 is_mended boolean not null default false,
                 primary key (source, partition_on, file, line))"""
        ).format(sql.Identifier(name))
    )
    for column in ("columns text[] not null default '{}'", "original text", "is_mended boolean not null default false"):
        conn.execute(
            sql.SQL("alter table quarantine.{} add column if not exists {}").format(
                sql.Identifier(name), sql.SQL(column)
            )
        )


LINE_PARSES = "line_parses"
"""The rule that a line of a file is a row at all. Land writes these to the quarantine, the gate all others."""


def lock(conn: psycopg.Connection, source: Source) -> None:
    """Land, gate and load of a source take turns, until the transaction ends."""
    conn.execute("select pg_advisory_xact_lock(hashtext(%s))", (f"ingest.{source.source}",))


def landed(conn: psycopg.Connection, source: Source, days: Sequence[date]) -> dict[tuple[str, date], tuple[int, str]]:
    """(entity, day) -> (rows, batch) as landed, for all ``days``.

    ``RuntimeError`` when a day was never landed.
    """
    try:
        rows = conn.execute(
            sql.SQL("select entity, partition_on, n_rows, batch from {} where partition_on between %s and %s").format(
                sql.Identifier(source.raw_schema, "_landed")
            ),
            (days[0], days[-1]),
        ).fetchall()
    except psycopg.errors.UndefinedTable as error:
        raise RuntimeError("The raw tables are missing: run python -m include.ingest prepare first.") from error
    found = {(entity, day): (n_rows, batch) for entity, day, n_rows, batch in rows}
    for day in days:
        for name in source.entities:
            if (name, day) not in found:
                raise RuntimeError(
                    f"{source.source}.{name} of {day} was never landed: "
                    f"run python -m include.ingest land --source {source.source} --as-of {day} first."
                )
    return found
