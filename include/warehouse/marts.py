"""Publish the marts: merge ``core.fact_*``, ``core.dim_*`` and ``core.rpt_*`` into ``published.*`` in one transaction.

``python -m include.warehouse.marts --as-of D [--full] [--allow-shrink]``

dbt may rebuild ``core`` as it likes; what BI reads is a copy that only the publisher may touch. The merge changes only
rows that differ, so identity, grants and row-level security stay, and a reader sees one night or the next. The key of a
mart is its unique index; its other indexes are carried over, and those that only BI needs are made (``ops.bi_index``).

Of a mart that dbt built in place only the rows that it noted in ``ops.unpublished`` are compared; a mart whose table is
another than the one published last, or that nothing was noted of, is compared whole. ``--full`` compares every mart
whole, takes every checksum anew, and so repairs what is not as it should be.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import psycopg
from psycopg import sql

from include import ops
from include.dates import parse_day
from include.warehouse import access
from include.warehouse.core import NotGreenError, hold_green_core
from include.warehouse.engine import connect
from include.warehouse.publish import PublishError, checksum, row_hash, with_lock_retries

MAX_SHRINK = 0.5
"""A mart that would lose more than this share of its live rows is refused: a source is probably missing."""

ANALYZE_FROM = 0.1
"""Share of a mart's rows from which on the planner's statistics are taken anew at once."""


@dataclass(frozen=True)
class Merged:
    """What the merge did to one mart; ``is_whole`` when all of its rows were compared."""

    table: str
    n_rows: int
    n_deleted: int
    n_written: int
    checksum: str
    is_whole: bool


@dataclass(frozen=True)
class Mart:
    """A mart as dbt built it: ``types`` by column, ``filenode`` another one after every rebuild of the table."""

    name: str
    key: tuple[str, ...]
    types: dict[str, str]
    filenode: int

    @property
    def source(self) -> sql.Identifier:
        """The table of core."""
        return sql.Identifier("core", self.name)

    @property
    def target(self) -> sql.Identifier:
        """The table that BI reads through its view."""
        return sql.Identifier("published", self.name)


@dataclass(frozen=True)
class Known:
    """What the last publication left of a mart with these columns."""

    n_rows: int
    checksum: Decimal
    filenode: int


def publish_core(as_of: date, *, allow_shrink: bool = False, full: bool = False) -> list[Merged]:
    """Merge every mart, all in one transaction; the returned list is one entry per table.

    Raises ``PublishError`` when a mart has no unique key or another one than before, changed the type of a column, lost
    a column or would shrink by more than ``MAX_SHRINK``; no row is another one then.
    """
    token = ops.begin("core", as_of, role="publisher")
    try:
        with connect("publisher") as conn:
            conn.execute("set local lock_timeout = '30s'")
            conn.execute("select pg_advisory_xact_lock(hashtext('publish:core'))")
            hold_green_core(conn)
            newest = conn.execute("select max(token) from ops.run_ledger where target = 'core'").fetchone()
            if newest and newest[0] != token:
                raise PublishError(f"A newer publication of the core marts (token {newest[0]}) has begun.")
            marts = _marts(conn)
            if not marts:
                raise PublishError("There are no marts in schema core: run the dbt build first.")
            for mart in marts:
                _reshape(conn, mart)
            merged = [_merge(conn, mart, allow_shrink, full) for mart in marts]
            for one in merged:
                conn.execute(
                    """
                    insert into ops.publication (target, as_of, token, n_rows, checksum) values (%s, %s, %s, %s, %s)
                    on conflict (target, as_of) do update set token = excluded.token, n_rows = excluded.n_rows,
                      checksum = excluded.checksum, published_at = now()
                    """,
                    (one.table, as_of, token, one.n_rows, one.checksum),
                )
            changed = any(one.n_deleted or one.n_written for one in merged)
            conn.execute(
                "update ops.run_ledger set state = %s, n_rows = %s, finished_at = now() where token = %s",
                ("published" if changed else "unchanged", sum(one.n_rows for one in merged), token),
            )
            return merged
    except (PublishError, NotGreenError) as error:
        with connect("publisher") as conn:
            conn.execute(
                "update ops.run_ledger set state = 'rejected', detail = %s, finished_at = now() where token = %s",
                (str(error), token),
            )
        raise


def _marts(conn: psycopg.Connection) -> list[Mart]:
    rows = conn.execute(
        """
        select relname, pg_relation_filenode(c.oid) from pg_class c join pg_namespace n on n.oid = relnamespace
        where nspname = 'core' and relkind = 'r' and relname ~ '^(fact|dim|rpt)_' order by 1
        """
    ).fetchall()
    return [Mart(name, _key(conn, "core", name), _types(conn, "core", name), filenode) for name, filenode in rows]


def _key(conn: psycopg.Connection, schema: str, table: str) -> tuple[str, ...]:
    row = conn.execute(
        """
        select array(select a.attname::text from unnest(i.indkey) with ordinality k(attnum, n)
                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum order by k.n)
        from pg_index i where i.indrelid = %s::regclass and i.indisunique and i.indpred is null and i.indexprs is null
        order by i.indexrelid limit 1
        """,
        (f"{schema}.{table}",),
    ).fetchone()
    if row is None:
        raise PublishError(f"{schema}.{table} has no unique index, so its rows have no key: add one to the dbt model.")
    return tuple(row[0])


def _types(conn: psycopg.Connection, schema: str, table: str) -> dict[str, str]:
    rows = conn.execute(
        """
        select attname, format_type(atttypid, atttypmod) from pg_attribute
        join pg_class c on c.oid = attrelid join pg_namespace n on n.oid = relnamespace
        where nspname = %s and relname = %s and attnum > 0 and not attisdropped order by attnum
        """,
        (schema, table),
    ).fetchall()
    return dict(rows)


def _indexes(conn: psycopg.Connection, schema: str, table: str) -> dict[str, str]:
    """Method and columns -> name of the indexes that are not unique."""
    rows = conn.execute(
        r"""
        select regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', ''), c.relname
        from pg_index i join pg_class c on c.oid = i.indexrelid
        where i.indrelid = to_regclass(%s) and not i.indisunique
        """,
        (f"{schema}.{table}",),
    ).fetchall()
    return dict(rows)


def _wanted_indexes(conn: psycopg.Connection, mart: Mart) -> set[str]:
    """Method and columns of the indexes, beside the key, that BI's table is to have."""
    rows = conn.execute("select columns from ops.bi_index where mart = %s", (mart.name,)).fetchall()
    return {*_indexes(conn, "core", mart.name), *(f"btree ({', '.join(columns)})" for (columns,) in rows)}


def _reshape(conn: psycopg.Connection, mart: Mart) -> None:
    """Bring the shape of what is published to what dbt built, in a transaction of its own.

    What is needed here takes a lock that no reader gets past: it is held for milliseconds, not until the rows are
    merged. A new column is empty until then. ``conn`` only looks.
    """
    have = _types(conn, "published", mart.name)
    if not have:
        return
    for column, kind in have.items():
        if column not in mart.types:
            raise PublishError(f"core.{mart.name} lost the column {column} that BI reads: bring it back.")
        if mart.types[column] != kind:
            raise PublishError(f"core.{mart.name}.{column} became {mart.types[column]}; BI reads it as {kind}.")
    key = _key(conn, "published", mart.name)
    if set(key) != set(mart.key):
        raise PublishError(
            f"core.{mart.name} has the key ({', '.join(mart.key)}), what BI reads ({', '.join(key)}): "
            "give a mart of another grain another name."
        )
    statements: list[sql.Composed] = [
        sql.SQL("alter table {} add column {} " + kind).format(mart.target, sql.Identifier(column))
        for column, kind in mart.types.items()
        if column not in have
    ]
    wanted = _wanted_indexes(conn, mart)
    statements += [
        sql.SQL("drop index {}").format(sql.Identifier("published", name))
        for definition, name in _indexes(conn, "published", mart.name).items()
        if definition not in wanted
    ]
    # The published order is kept: a view can only gain columns at its end.
    columns = [*have, *(column for column in mart.types if column not in have)]
    seen = list(_types(conn, "bi", mart.name))
    if seen != columns:
        statements.append(_view(mart, columns))
    statements += access.changes(conn, "published", mart.name, [mart.name])
    if statements:
        statements = access.locked([mart.name] if seen else [], statements)
        with_lock_retries(lambda other: [other.execute(statement) for statement in statements])


def _view(mart: Mart, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL("create or replace view {} with (security_invoker = true) as select {} from {}").format(
        sql.Identifier("bi", mart.name), _list(columns), mart.target
    )


def _list(columns: Sequence[str], of: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(of, column) if of else sql.Identifier(column) for column in columns)


def _merge(conn: psycopg.Connection, mart: Mart, allow_shrink: bool, full: bool) -> Merged:
    """Make ``published`` what ``core`` is, and remember what it holds."""
    scopes = _take_scopes(conn, mart)
    columns = list(_types(conn, "published", mart.name))
    if not columns:
        columns = list(mart.types)
        merged = _create(conn, mart)
    else:
        known = None if full else _known(conn, mart, columns)
        is_same_table = known is not None and known.filenode == mart.filenode
        merged = _merge_rows(conn, mart, columns, known, scopes if is_same_table else None, allow_shrink)
    for definition in _wanted_indexes(conn, mart) - _indexes(conn, "published", mart.name).keys():
        conn.execute(sql.SQL("create index on {} using " + definition).format(mart.target))
    if merged.n_written > ANALYZE_FROM * merged.n_rows:
        conn.execute(sql.SQL("analyze {}").format(mart.target))
    conn.execute(
        """
        insert into ops.published_mart (mart, core_filenode, columns, n_rows, checksum) values (%s, %s, %s, %s, %s)
        on conflict (mart) do update set core_filenode = excluded.core_filenode, columns = excluded.columns,
          n_rows = excluded.n_rows, checksum = excluded.checksum, published_at = now()
        """,
        (mart.name, mart.filenode, columns, merged.n_rows, merged.checksum),
    )
    for table in ("noted", "fresh", "changed", *(f"scope_{number}" for number in range(len(scopes or [])))):
        conn.execute(sql.SQL("drop table if exists pg_temp.{}").format(sql.Identifier(table)))
    return merged


def _known(conn: psycopg.Connection, mart: Mart, columns: list[str]) -> Known | None:
    row = conn.execute(
        "select n_rows, checksum::numeric, core_filenode::bigint from ops.published_mart "
        "where mart = %s and columns = %s",
        (mart.name, columns),
    ).fetchone()
    return Known(*row) if row else None


def _create(conn: psycopg.Connection, mart: Mart) -> Merged:
    """A mart that was never published: its table, key and view, and who may read them."""
    conn.execute(sql.SQL("create table {} (like {})").format(mart.target, mart.source))
    conn.execute(sql.SQL("insert into {} select * from {}").format(mart.target, mart.source))
    conn.execute(sql.SQL("alter table {} add primary key ({})").format(mart.target, _list(mart.key)))
    conn.execute(_view(mart, list(mart.types)))
    for statement in access.changes(conn, "published", mart.name, [mart.name]):
        conn.execute(statement)
    n_rows, digest = checksum(conn, "published", mart.name, list(mart.types))
    return Merged(mart.name, n_rows, 0, n_rows, digest, is_whole=True)


def _take_scopes(conn: psycopg.Connection, mart: Mart) -> list[list[str]] | None:
    """Take what dbt noted of the mart out of ``ops.unpublished``; None when that is nothing.

    Makes a temporary table ``scope_<i>`` of the noted keys for each set of columns that is returned.
    """
    conn.execute("create temporary table noted (scope jsonb) on commit drop")
    taken = conn.execute(
        "with taken as (delete from ops.unpublished where mart = %s returning scope) "
        "insert into noted select distinct scope from taken",
        (mart.name,),
    )
    if not taken.rowcount:
        return None
    keys = "array(select name from jsonb_object_keys(scope) as name order by 1)"
    found = conn.execute(f"select distinct {keys} from noted where scope is not null").fetchall()
    for number, (columns,) in enumerate(found):
        table = sql.Identifier(f"scope_{number}")
        conn.execute(
            sql.SQL(
                "create temporary table {} on commit drop as select {} from noted, "
                "jsonb_populate_record(null::{}, scope) as k where " + keys + " = {}"
            ).format(table, _list(columns, "k"), mart.source, sql.Literal(columns))
        )
        conn.execute(sql.SQL("analyze {}").format(table))
    return [columns for (columns,) in found]


def _merge_rows(
    conn: psycopg.Connection,
    mart: Mart,
    columns: list[str],
    known: Known | None,
    scopes: list[list[str]] | None,
    allow_shrink: bool,
) -> Merged:
    """Bring the rows of ``scopes``, or of the whole mart, to those of core.

    The new checksum is made of the one before and of the rows that went and came, or of all rows where it is not known.
    """
    names = {
        "source": mart.source,
        "target": mart.target,
        "fresh": mart.source if scopes is None else sql.Identifier("fresh"),
        "columns": _list(columns),
        "keys": _list(mart.key),
        "mine": _list(columns, "s"),
        "theirs": _list(columns, "t"),
        "first": sql.Identifier(mart.key[0]),
        "same": _same(mart.key, "s"),
        "hash": row_hash(columns, "t"),
    }

    def run(statement: str, **more: sql.Composable) -> psycopg.Cursor:
        return conn.execute(sql.SQL(statement).format(**names, **more))

    def rows_of(statement: str, **more: sql.Composable) -> tuple[int, Decimal]:
        """How many rows ``statement`` returns the hash of, and the sum."""
        row = run("with h as (" + statement + ") select count(*), coalesce(sum(hash), 0) from h", **more).fetchone()
        assert row is not None
        return row[0], row[1]

    if scopes is not None:
        run("create temporary table fresh on commit drop as select {columns} from {source} where false")
        for number, of in enumerate(scopes):
            # A row of two scopes comes once.
            run(
                "insert into fresh select {mine} from {source} s join {scope} k on {within} "
                "where not exists (select from fresh t where {same})",
                scope=sql.Identifier(f"scope_{number}"),
                within=_same(of, "s", "k"),
            )
        run("analyze fresh")
    run(
        "create temporary table changed on commit drop as "
        "select {mine} from {fresh} s left join {target} t using ({keys}) "
        "where t.{first} is null or row({mine}) is distinct from row({theirs})"
    )
    run("analyze changed")
    if scopes is None:
        gone = [
            rows_of(
                "delete from {target} t where not exists (select from {source} s where {same}) returning {hash} as hash"
            )
        ]
    else:
        gone = [
            rows_of(
                "delete from {target} t using {scope} k where {within} "
                "and not exists (select from {source} s where {same}) returning {hash} as hash",
                scope=sql.Identifier(f"scope_{number}"),
                within=_same(of, "k"),
            )
            for number, of in enumerate(scopes)
        ]
    n_gone = sum(n for n, _ in gone)
    n_before = known.n_rows if known else n_gone + rows_of("select 0 as hash from {target}")[0]
    if n_before and n_gone > MAX_SHRINK * n_before and not allow_shrink:
        raise PublishError(
            f"{mart.name} would lose {n_gone:,} of its {n_before:,} rows. If that is meant: "
            "python -m include.warehouse.marts --as-of D --allow-shrink"
        )
    n_replaced, replaced = rows_of("delete from {target} t using changed s where {same} returning {hash} as hash")
    n_written, written = rows_of(
        "insert into {target} as t ({columns}) select {columns} from changed returning {hash} as hash"
    )
    if known:
        n_rows = n_before - n_gone - n_replaced + n_written
        digest = str(known.checksum - sum(hashes for _, hashes in gone) - replaced + written)
    else:
        n_rows, digest = checksum(conn, "published", mart.name, columns)
    return Merged(mart.name, n_rows, n_gone, n_written, digest, is_whole=scopes is None)


def _same(columns: Sequence[str], left: str, right: str = "t") -> sql.Composed:
    return sql.SQL(" and ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, column), sql.Identifier(right, column)) for column in columns
    )


def main() -> None:
    """Publish, printing one line per mart."""
    parser = argparse.ArgumentParser(description="Publish the core marts to bi.*")
    parser.add_argument("--as-of", type=parse_day, required=True)
    parser.add_argument("--allow-shrink", action="store_true", help="accept a mart that loses most of its rows")
    parser.add_argument("--full", action="store_true", help="compare every row, and take every checksum anew")
    args = parser.parse_args()
    started = time.monotonic()
    try:
        merged = publish_core(args.as_of, allow_shrink=args.allow_shrink, full=args.full)
    except psycopg.errors.LockNotAvailable:
        sys.exit("not published: a reader or a dbt build has held a lock for more than 30 seconds; run it again")
    except (PublishError, NotGreenError, psycopg.Error) as error:
        sys.exit(f"not published: {error}")
    for mart in merged:
        how = "compared whole" if mart.is_whole else "only what changed"
        print(
            f"published.{mart.table}: {mart.n_rows:,} rows, {mart.n_written:,} written, {mart.n_deleted:,} gone ({how})"
        )
    print(f"published {len(merged)} marts as of {args.as_of} in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
