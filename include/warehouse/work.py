"""The work of a dbt build: which keys it must build anew, or why it must build everything.

Loads say what they changed in ``ops.touched_key``. A build takes those keys into ``ops.touched_work``, where they stay
until a build is green: a build that was killed or failed loses nothing. See docs/runbooks/warehouse.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql

MANY_ORDERS = 10_000
"""Up to so many touched orders a build is incremental, whatever share of all orders they are."""

LARGEST_SHARE = 0.25
"""More than this share of all orders touched: building everything is quicker than looking each one up."""

CLEARED = ("int_touched__orders", "int_touched__order_keys", "int_touched__contents", "int_touched__content_keys",
           "int_touched__sales", "int_touched__days", "int_touched__customers", "int_touched__products",
           "int_touched__session_days")  # fmt: skip


UNFINISHED = "unfinished"
"""In place of a fingerprint: tables may have been made by code that never was green, and was taken back."""


def take(conn: psycopg.Connection) -> int:
    """Move the keys that loads have committed from ``ops.touched_key`` to ``ops.touched_work``; how many it has then.

    A key that a load is writing at this moment is left to the next build: this one may not see its rows.
    """
    conn.execute(
        """with taken as (select source, thing, key, told_by from ops.touched_key for update skip locked),
                gone as (delete from ops.touched_key as t using taken as k
                         where (t.source, t.thing, t.key, t.told_by) = (k.source, k.thing, k.key, k.told_by))
           insert into ops.touched_work (source, thing, key, told_by) select source, thing, key, told_by from taken
           on conflict do nothing"""
    )
    return int(_number(conn, "select count(*) from (select distinct source, thing, key from ops.touched_work) as keys"))


def why_everything(conn: psycopg.Connection, fingerprint: str) -> str | None:
    """Why a build cannot be incremental; None when it can."""
    newest = conn.execute(
        "select fingerprint from ops.warehouse_state where to_regclass('intermediate.int_orders__current') is not null"
    ).fetchone()
    if newest is None:
        return "no build was green yet"
    if newest[0] == UNFINISHED:
        return "the build before it built everything, and was not green"
    if newest[0] != fingerprint:
        return "the dbt project, a source or a setting changed since the newest green build"
    loaded = conn.execute("select source from ops.touched_work where key = '*' limit 1").fetchone()
    if loaded:
        return f"{loaded[0]} was loaded for the first time"
    n_touched = _number(
        conn, "select count(*) from (select distinct source, key from ops.touched_work where thing = 'orders') as keys"
    )
    n_orders = _number(
        conn, "select greatest(reltuples, 0) from pg_class where oid = to_regclass('intermediate.int_orders__current')"
    )
    if n_touched > max(MANY_ORDERS, LARGEST_SHARE * n_orders):
        return f"{n_touched:,} of about {int(n_orders):,} orders are touched"
    return None


def without_rows(conn: psycopg.Connection, schemas: Mapping[str, str]) -> list[str]:
    """Sources (source -> schema of its raw tables) that have no row in raw, no row in staging and no touched key.

    Their staging would be built as it is, empty.
    """
    touched = {source for (source,) in conn.execute("select distinct source from ops.touched_work")}
    found = []
    for source, schema in schemas.items():
        tables = conn.execute(
            """select schemaname, tablename from pg_tables
               where schemaname = %s and left(tablename, 1) <> '_'
                  or schemaname = 'staging' and starts_with(tablename, %s)""",
            (schema, f"stg_{source}__"),
        ).fetchall()
        rows = sql.SQL(" union all ").join(
            sql.SQL("(select 1 from {} limit 1)").format(sql.Identifier(*table)) for table in tables
        )
        if tables and source not in touched and conn.execute(rows).fetchone() is None:
            found.append(source)
    return found


def begin_everything(conn: psycopg.Connection) -> None:
    """Everything is about to be built: until that is green, rows of other code may lie beside those of the newest."""
    conn.execute("update ops.warehouse_state set fingerprint = %s", (UNFINISHED,))


def _number(conn: psycopg.Connection, query: str) -> float:
    row = conn.execute(query).fetchone()
    return row[0] if row else 0


def done(conn: psycopg.Connection, fingerprint: str) -> None:
    """A build of everything was green: its keys are no longer touched, and what it was made of is remembered."""
    conn.execute("delete from ops.touched_work")
    for name in CLEARED:
        if conn.execute("select to_regclass(%s)", (f"intermediate.{name}",)).fetchone() != (None,):
            conn.execute(sql.SQL("truncate {}").format(sql.Identifier("intermediate", name)))
    conn.execute(
        """insert into ops.warehouse_state (fingerprint) values (%s)
           on conflict (is_newest) do update set fingerprint = excluded.fingerprint, built_at = now()""",
        (fingerprint,),
    )
