"""Touched keys: which orders, customers and products a load changed, so that dbt builds only what depends on them.

``changes`` in a source's YAML says which raw column names what. Keys go to ``ops.touched_key`` in the load's own
transaction; ``include.dbt`` takes them from there (docs/decisions/0011-incremental-by-touched-keys.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import psycopg
from psycopg import sql

from include.ingest.sources import Entity, Source

EVERYTHING = "*"
"""The key that stands for all keys of a source: the next build is a full refresh."""

MANY_ROWS = 50_000
"""A table's first load of more rows than this touches everything: naming each key would cost more than it saves."""

UNCOMPARED = ("_file", "_line")
"""Where a row stood: a file that comes again under another name changes nothing."""


class Changes:
    """What one load changes. ``before`` and ``after`` each entity's replacement, ``write`` at the end."""

    def __init__(self, conn: psycopg.Connection, source: Source) -> None:
        self.conn, self.source = conn, source
        # `told_by` is the raw table whose rows differ; `entity` the one whose keys name the thing.
        conn.execute("create temp table touched_now (entity text, thing text, key text, told_by text) on commit drop")

    def before(self, name: str, entity: Entity, columns: Iterable[str], first: date, last: date) -> None:
        """Remember the rows of the days ``first``..``last``, by key and a hash of ``columns``."""
        if not entity.changes:
            return
        self.conn.execute(
            sql.SQL("create temp table rows_before on commit drop as {}").format(
                self._rows(name, entity, columns, first, last)
            )
        )

    def after(self, name: str, entity: Entity, columns: Iterable[str], first: date, last: date) -> None:
        """Note what the rows name that are not as they were: the old ones and the new ones."""
        if not entity.changes:
            return
        things = entity.changes.items()
        rows = self._rows(name, entity, columns, first, last)
        if self._is_first(name, first, last):
            for thing, _ in things:
                self._note(name, thing, sql.SQL("select {}").format(sql.Literal(EVERYTHING)))
        elif self.conn.execute("select not exists (select from rows_before)").fetchone() == (True,):
            for thing, change in things:
                column = sql.Identifier(change.column)
                self._note(name, thing, sql.SQL("select {}::text from ({}) as r").format(column, rows))
        else:
            key = sql.SQL(", ").join(map(sql.Identifier, (*entity.key, "partition_on")))
            pairs = sql.SQL(", ").join(
                sql.SQL("b.{0}::text as {1}, a.{0}::text as {2}").format(
                    sql.Identifier(change.column), sql.Identifier(f"{thing}_before"), sql.Identifier(f"{thing}_after")
                )
                for thing, change in things
            )
            self.conn.execute("analyze rows_before")
            self.conn.execute(
                sql.SQL(
                    """create temp table differing on commit drop as
                       select {pairs} from rows_before as b full join ({rows}) as a using ({key})
                       where a.content is distinct from b.content"""
                ).format(pairs=pairs, rows=rows, key=key)
            )
            for thing, _ in things:
                either = sql.SQL("select {} from differing union all select {} from differing").format(
                    sql.Identifier(f"{thing}_before"), sql.Identifier(f"{thing}_after")
                )
                self._note(name, thing, either)
            self.conn.execute("drop table differing")
        self.conn.execute("drop table rows_before")

    def write(self) -> None:
        """Add the keys to ``ops.touched_key``."""
        for name, entity in self.source.raw_entities.items():
            for thing, change in entity.changes.items():
                if change.via is None:
                    continue
                other, column = change.via
                parts = {
                    "there": sql.Identifier(self.source.raw_schema, other),
                    "key": sql.Identifier(self.source.entities[other].changes[thing].column),
                    "column": sql.Identifier(column),
                    "noted": sql.SQL("touched_now as n where n.entity = {} and n.thing = {}").format(
                        sql.Literal(name), sql.Literal(thing)
                    ),
                }
                self._note(
                    other,
                    thing,
                    sql.SQL(
                        "select {key}::text from {there} where {column}::text in (select n.key from {noted}) "
                        "union all select n.key from {noted} and n.key = '*'"
                    ).format(**parts),
                    told_by=name,
                )
        by_another = [
            (name, thing)
            for name, entity in self.source.raw_entities.items()
            for thing, change in entity.changes.items()
            if change.through
        ]
        for name, thing in by_another:
            self.conn.execute("delete from touched_now where (entity, thing) = (%s, %s)", (name, thing))
        told = self.conn.execute("select distinct thing, told_by from touched_now order by thing, told_by").fetchall()
        for thing, told_by in told:
            keys = sql.SQL("select key from touched_now where thing = {} and told_by = {}")
            record(self.conn, self.source.source, thing, keys.format(sql.Literal(thing), sql.Literal(told_by)), told_by)

    def _rows(self, name: str, entity: Entity, columns: Iterable[str], first: date, last: date) -> sql.Composed:
        """Select of key, columns that name things, and ``content``, a hash of all that a row says."""
        kept = dict.fromkeys((*entity.key, "partition_on", *(one.column for one in entity.changes.values())))
        return sql.SQL(
            "select {kept}, hash_record_extended(row({content}), 0) as content "
            "from {table} where partition_on between {first} and {last}"
        ).format(
            kept=sql.SQL(", ").join(map(sql.Identifier, kept)),
            content=sql.SQL(", ").join(map(sql.Identifier, (one for one in columns if one not in UNCOMPARED))),
            table=sql.Identifier(self.source.raw_schema, name),
            first=sql.Literal(first),
            last=sql.Literal(last),
        )

    def _is_first(self, name: str, first: date, last: date) -> bool:
        """Whether the table had no rows, and now has many."""
        table = sql.Identifier(self.source.raw_schema, name)
        query = sql.SQL(
            """select not exists (select from rows_before)
                      and not exists (select from {table} where partition_on < %s)
                      and not exists (select from {table} where partition_on > %s)
                      and (select count(*) from (select from {table} limit %s) as found) > %s"""
        )
        return self.conn.execute(
            query.format(table=table), (first, last, MANY_ROWS + 1, MANY_ROWS)
        ).fetchone() == (True,)  # fmt: skip

    def _note(self, name: str, thing: str, keys: sql.Composable, told_by: str | None = None) -> None:
        self.conn.execute(
            sql.SQL(
                "insert into touched_now select distinct {}, {}, key, {} from ({}) as keys (key) where key <> ''"
            ).format(sql.Literal(name), sql.Literal(thing), sql.Literal(told_by or name), keys)
        )


def record(conn: psycopg.Connection, source: str, thing: str, keys: sql.Composable, told_by: str = "") -> None:
    """Add the keys that the select ``keys`` gives (text) to ``ops.touched_key``.

    ``told_by`` is the raw table whose rows differ, so that a model is built anew only where a table that it reads is
    another; empty: any.
    """
    # Where everything is touched anyway. The update holds the row, so that no build takes it before we commit.
    held = conn.execute(
        "update ops.touched_key set touched_at = now() where source = %s and thing = %s and key = %s",
        (source, thing, EVERYTHING),
    )
    if held.rowcount:
        return
    # `do update` for the same reason: a build leaves a key that a load is writing to the next build.
    conn.execute(
        sql.SQL(
            """insert into ops.touched_key (source, thing, key, told_by)
               select {}, {}, key, {} from (select distinct key from ({}) as found (key)) as keys order by key
               on conflict (source, thing, key, told_by) do update set touched_at = excluded.touched_at"""
        ).format(sql.Literal(source), sql.Literal(thing), sql.Literal(told_by), keys)
    )
