"""Publish the core marts: merge ``core.fact_*`` and ``core.dim_*`` into ``published.*`` in one transaction.

``python -m include.warehouse.marts --as-of D``

dbt may rebuild ``core`` as it likes; what BI reads is a copy that only the publisher may touch. The merge
changes only rows that differ, so identity, grants and views stay, and a reader sees one night or the next.
The key of a mart is its unique index.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from datetime import date

import psycopg
from psycopg import sql

from include import ops
from include.dates import parse_day
from include.warehouse.core import NotGreenError, hold_green_core
from include.warehouse.engine import connect
from include.warehouse.publish import PublishError, checksum

MAX_SHRINK = 0.5
"""A mart that would lose more than this share of its live rows is refused: a source is probably missing."""


@dataclass(frozen=True)
class Merged:
    """What the merge did to one mart."""

    table: str
    n_rows: int
    n_deleted: int
    n_written: int
    checksum: str


def publish_core(as_of: date, *, allow_shrink: bool = False) -> list[Merged]:
    """Merge every mart, all in one transaction; the returned list is one entry per table.

    Raises ``PublishError`` when a mart has no unique key, changed the type of a column, lost a column or
    would shrink by more than ``MAX_SHRINK``; nothing is visible then.
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
            merged = [_merge(conn, table, allow_shrink) for table in _marts(conn)]
            if not merged:
                raise PublishError("There are no marts in schema core: run the dbt build first.")
            for mart in merged:
                conn.execute(
                    """
                    insert into ops.publication (target, as_of, token, n_rows, checksum) values (%s, %s, %s, %s, %s)
                    on conflict (target, as_of) do update set token = excluded.token, n_rows = excluded.n_rows,
                      checksum = excluded.checksum, published_at = now()
                    """,
                    (mart.table, as_of, token, mart.n_rows, mart.checksum),
                )
            changed = any(mart.n_deleted or mart.n_written for mart in merged)
            conn.execute(
                "update ops.run_ledger set state = %s, n_rows = %s, finished_at = now() where token = %s",
                ("published" if changed else "unchanged", sum(mart.n_rows for mart in merged), token),
            )
            return merged
    except (PublishError, NotGreenError) as error:
        with connect("publisher") as conn:
            conn.execute(
                "update ops.run_ledger set state = 'rejected', detail = %s, finished_at = now() where token = %s",
                (str(error), token),
            )
        raise


def _marts(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute(
        "select tablename from pg_tables where schemaname = 'core' and tablename ~ '^(fact|dim)_' order by 1"
    ).fetchall()
    return [row[0] for row in rows]


def _key(conn: psycopg.Connection, table: str) -> list[str]:
    row = conn.execute(
        """
        select array(select a.attname from unnest(i.indkey) with ordinality k(attnum, n)
                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum order by k.n)
        from pg_index i where i.indrelid = %s::regclass and i.indisunique order by i.indexrelid limit 1
        """,
        (f"core.{table}",),
    ).fetchone()
    if row is None:
        raise PublishError(f"core.{table} has no unique index, so its rows have no key: add one to the dbt model.")
    return list(row[0])


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


def _ensure_table(conn: psycopg.Connection, table: str, key: list[str]) -> list[str]:
    """Make or widen ``published.<table>`` and its view; returns the mart's columns."""
    source, target = sql.Identifier("core", table), sql.Identifier("published", table)
    want, have = _types(conn, "core", table), _types(conn, "published", table)
    if not have:
        conn.execute(sql.SQL("create table {} (like {})").format(target, source))
        keys = sql.SQL(", ").join(map(sql.Identifier, key))
        conn.execute(sql.SQL("alter table {} add primary key ({})").format(target, keys))
    else:
        for column, kind in have.items():
            if column not in want:
                raise PublishError(f"core.{table} lost the column {column} that BI reads: bring it back.")
            if want[column] != kind:
                raise PublishError(f"core.{table}.{column} became {want[column]}; BI reads it as {kind}.")
        for column, kind in want.items():
            if column not in have:
                conn.execute(sql.SQL("alter table {} add column {} " + kind).format(target, sql.Identifier(column)))
    view_columns = list(_types(conn, "bi", table))
    # `create or replace view` may only add columns at the end: the published order is kept.
    columns = list(_types(conn, "published", table))
    if view_columns != columns:
        conn.execute(
            sql.SQL("create or replace view {} as select {} from {}").format(
                sql.Identifier("bi", table), sql.SQL(", ").join(map(sql.Identifier, columns)), target
            )
        )
    return columns


def _merge(conn: psycopg.Connection, table: str, allow_shrink: bool) -> Merged:
    key = _key(conn, table)
    columns = _ensure_table(conn, table, key)
    names = {
        "source": sql.Identifier("core", table),
        "target": sql.Identifier("published", table),
        "columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
        "keys": sql.SQL(", ").join(map(sql.Identifier, key)),
        "mine": sql.SQL(", ").join(sql.SQL("s.{}").format(sql.Identifier(c)) for c in columns),
        "theirs": sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(c)) for c in columns),
        "first": sql.Identifier(key[0]),
    }
    conn.execute(
        sql.SQL(
            "create temporary table changed on commit drop as "
            "select {mine} from {source} s left join {target} t using ({keys}) "
            "where t.{first} is null or row({mine}) is distinct from row({theirs})"
        ).format(**names)
    )
    before = conn.execute(sql.SQL("select count(*) from {target}").format(**names)).fetchone()
    gone = conn.execute(
        sql.SQL("delete from {target} t where not exists (select from {source} s where {same})").format(
            same=sql.SQL(" and ").join(sql.SQL("s.{0} = t.{0}").format(sql.Identifier(c)) for c in key), **names
        )
    ).rowcount
    assert before is not None
    if before[0] and gone > MAX_SHRINK * before[0] and not allow_shrink:
        raise PublishError(
            f"{table} would lose {gone:,} of its {before[0]:,} rows. If that is meant: "
            "python -m include.warehouse.marts --as-of D --allow-shrink"
        )
    conn.execute(sql.SQL("delete from {target} where ({keys}) in (select {keys} from changed)").format(**names))
    written = conn.execute(sql.SQL("insert into {target} ({columns}) select {columns} from changed").format(**names))
    conn.execute("drop table changed")
    n_rows, digest = checksum(conn, "published", table, columns)
    return Merged(table, n_rows, gone, written.rowcount, digest)


def main() -> None:
    """Publish, printing one line per mart."""
    parser = argparse.ArgumentParser(description="Publish the core marts to bi.*")
    parser.add_argument("--as-of", type=parse_day, required=True)
    parser.add_argument("--allow-shrink", action="store_true", help="accept a mart that loses most of its rows")
    args = parser.parse_args()
    started = time.monotonic()
    try:
        merged = publish_core(args.as_of, allow_shrink=args.allow_shrink)
    except psycopg.errors.LockNotAvailable:
        sys.exit("not published: a reader or a dbt build has held a lock for more than 30 seconds; run it again")
    except (PublishError, NotGreenError, psycopg.Error) as error:
        sys.exit(f"not published: {error}")
    for mart in merged:
        print(f"published.{mart.table}: {mart.n_rows:,} rows, {mart.n_written:,} written, {mart.n_deleted:,} gone")
    print(f"published {len(merged)} marts as of {args.as_of} in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
