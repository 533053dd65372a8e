"""Write, audit, publish: how anything that BI reads comes to be.

A prediction table is partitioned by ``as_of``. A writer takes a fencing token (`ops.begin`), writes its
rows beside (`stage`), the gate audits them (`mark_audited`), and `publish` swaps the partition in within
one transaction, provided that no newer token was handed out meanwhile. Core tables (``core.fact_*``,
``core.dim_*``) are merged into ``published.*`` by `publish_core`, all in one transaction. Readers see
``bi.*`` views over both: the old or the new, never a mix.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import psycopg
import pyarrow as pa
from psycopg import sql

from include.dates import parse_day
from include.warehouse import access
from include.warehouse.copy import copy_table
from include.warehouse.engine import connect

LOCK_TIMEOUT_SECONDS = 2
LOCK_TRIES = 15
"""A swap waits for readers of the table at most two seconds at a time, so that readers never queue behind it."""

T = TypeVar("T")


class PublishError(Exception):
    """Publishing was refused; the message says why and what to do. What was live stays live."""


class StaleWriterError(PublishError):
    """A newer attempt at the same table and day exists: this one must not overwrite it."""


@dataclass(frozen=True)
class Staged:
    """A table written beside, waiting for its audit."""

    target: str
    as_of: date
    token: int
    stage_table: str
    n_rows: int


@dataclass(frozen=True)
class Published:
    """What `publish` did: ``is_changed`` is false when the live rows were already these."""

    target: str
    as_of: date
    n_rows: int
    checksum: str
    is_changed: bool


def _bare(target: str) -> str:
    return target.removeprefix("predictions.").removeprefix("bi.")


def _columns(conn: psycopg.Connection, schema: str, table: str) -> list[str]:
    rows = conn.execute(
        "select column_name from information_schema.columns where table_schema = %s and table_name = %s "
        "order by ordinal_position",
        (schema, table),
    ).fetchall()
    return [row[0] for row in rows]


def _list(columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def row_hash(columns: Sequence[str], of: str | None = None) -> sql.Composed:
    """SQL for the bigint hash of a row over ``columns`` (of the relation or alias ``of``); a checksum is their sum.

    The second hash is needed: that of a record is linear in those of its columns, so that a sum of them does not
    change when two rows swap a value.
    """
    names = [sql.Identifier(of, column) if of else sql.Identifier(column) for column in columns]
    return sql.SQL("hashint8extended(hash_record_extended(row({}), 0), 1)").format(sql.SQL(", ").join(names))


def checksum(conn: psycopg.Connection, schema: str, table: str, columns: list[str]) -> tuple[int, str]:
    """``(rows, checksum)`` of a table over ``columns``; the order of rows does not matter."""
    row = conn.execute(
        sql.SQL("select count(*), coalesce(sum({}), 0)::text from {}").format(
            row_hash(columns), sql.Identifier(schema, table)
        )
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def stage(target: str, as_of: date, token: int, rows: pa.Table) -> str:
    """Write ``rows`` (the target's columns without ``published_at``) beside; returns the table's name.

    Role: scorer. A second call with the same token replaces the first.
    """
    target = _bare(target)
    name = f"{target}__{as_of:%Y%m%d}_t{token}"
    with connect("scorer") as conn:
        columns = [column for column in _columns(conn, "predictions", target) if column != "published_at"]
        if not columns:
            raise PublishError(f"There is no table predictions.{target}: write its migration first.")
        if sorted(rows.column_names) != sorted(columns):
            raise PublishError(f"predictions.{target} has the columns {columns}, the rows have {rows.column_names}.")
        table = sql.Identifier("predictions_stage", name)
        conn.execute(sql.SQL("drop table if exists {}").format(table))
        conn.execute(
            sql.SQL("create table {} as select {} from {} with no data").format(
                table, _list(columns), sql.Identifier("predictions", target)
            )
        )
        copy_table(conn, f"predictions_stage.{name}", rows.select(columns))
        conn.execute(
            "update ops.run_ledger set state = 'staged', stage_table = %s, n_rows = %s where token = %s",
            (name, rows.num_rows, token),
        )
    return name


def staged(as_of: date) -> list[Staged]:
    """The newest attempt per target of ``as_of`` that waits for its audit or its publication."""
    with connect("publisher") as conn:
        rows = conn.execute(
            """
            select distinct on (target) target, as_of, token, stage_table, n_rows, state
            from ops.run_ledger
            where as_of = %s and stage_table is not null
            order by target, token desc
            """,
            (as_of,),
        ).fetchall()
    return [Staged(*row[:5]) for row in rows if row[5] in ("staged", "audited", "rejected")]


def mark_audited(token: int, ok: bool, detail: str = "") -> None:
    """Record the gate's verdict on a staged table. Only an audited one may be published."""
    with connect("publisher") as conn:
        conn.execute(
            "update ops.run_ledger set state = %s, detail = %s where token = %s and state in "
            "('staged', 'audited', 'rejected')",
            ("audited" if ok else "rejected", detail, token),
        )


def with_lock_retries(work: Callable[[psycopg.Connection], T]) -> T:
    """``work`` in a transaction of the publisher that waits for readers a short time at a time.

    Raises ``PublishError`` when a reader holds the table all the while.
    """
    for attempt in range(LOCK_TRIES):
        try:
            with connect("publisher") as conn:
                conn.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
                return work(conn)
        except psycopg.errors.LockNotAvailable:
            if attempt == LOCK_TRIES - 1:
                raise PublishError("A reader has held the table for too long; what was live stays live.") from None
            time.sleep(0.5 * (attempt + 1))
    raise AssertionError("unreachable")


def _partition(conn: psycopg.Connection, target: str, as_of: date) -> str | None:
    row = conn.execute(
        """
        select child.relname from pg_inherits
        join pg_class child on child.oid = inhrelid
        where inhparent = %s::regclass and pg_get_expr(child.relpartbound, child.oid) = %s
        """,
        (f"predictions.{target}", f"FOR VALUES IN ('{as_of.isoformat()}')"),
    ).fetchone()
    return row[0] if row else None


def _views(conn: psycopg.Connection, target: str) -> list[str]:
    rows = conn.execute(
        "select viewname from pg_views where schemaname = 'bi' and viewname = any (%s) order by 1",
        ([target, f"{target}_latest"],),
    ).fetchall()
    return [row[0] for row in rows]


def publish(target: str, as_of: date, token: int) -> Published:
    """Swap the audited rows of ``token`` in as the partition ``as_of``, in one transaction.

    When the live rows are the same already, they stay (with their ``published_at``).
    Raises ``StaleWriterError`` when a newer token exists, ``PublishError`` when the audit is missing or failed.
    """
    target = _bare(target)

    def swap(conn: psycopg.Connection) -> Published:
        conn.execute("select pg_advisory_xact_lock(hashtext(%s))", (f"publish:{target}",))
        row = conn.execute(
            "select state, stage_table, (select max(token) from ops.run_ledger where target = %(t)s and as_of = %(d)s) "
            "from ops.run_ledger where token = %(k)s and target = %(t)s and as_of = %(d)s",
            {"t": target, "d": as_of, "k": token},
        ).fetchone()
        if row is None:
            raise PublishError(f"Token {token} was never handed out for {target} as of {as_of}.")
        state, stage_table, newest = row
        if token != newest:
            raise StaleWriterError(f"Token {token} for {target} as of {as_of} is stale: {newest} is newer.")
        if state in ("published", "unchanged"):
            live = conn.execute(
                "select n_rows, checksum from ops.publication where target = %s and as_of = %s", (target, as_of)
            ).fetchone()
            assert live is not None
            return Published(target, as_of, live[0], live[1], is_changed=False)
        if state != "audited":
            raise PublishError(
                f"{target} as of {as_of} (token {token}) is {state}, not audited: "
                f"run `python -m expectations.predictions --as-of {as_of}` and see ops.quality_result."
            )
        columns = _columns(conn, "predictions_stage", stage_table)
        n_rows, digest = checksum(conn, "predictions_stage", stage_table, columns)
        old = _partition(conn, target, as_of)
        live = conn.execute(
            "select checksum from ops.publication where target = %s and as_of = %s", (target, as_of)
        ).fetchone()
        is_changed = old is None or live is None or live[0] != digest
        if is_changed:
            views = _views(conn, target)
            for statement in access.locked(views, access.changes(conn, "predictions", target, views)):
                conn.execute(statement)
            _swap_partition(conn, target, as_of, token, stage_table, columns, old)
        conn.execute(
            """
            insert into ops.publication (target, as_of, token, n_rows, checksum) values (%s, %s, %s, %s, %s)
            on conflict (target, as_of) do update set token = excluded.token, n_rows = excluded.n_rows,
              checksum = excluded.checksum,
              published_at = case when publication.checksum = excluded.checksum
                             then publication.published_at else now() end
            """,
            (target, as_of, token, n_rows, digest),
        )
        conn.execute(
            "update ops.run_ledger set state = %s, n_rows = %s, checksum = %s, finished_at = now() where token = %s",
            ("published" if is_changed else "unchanged", n_rows, digest, token),
        )
        return Published(target, as_of, n_rows, digest, is_changed)

    try:
        done = with_lock_retries(swap)
    except StaleWriterError as error:
        with connect("publisher") as conn:
            conn.execute(
                "update ops.run_ledger set state = 'refused', detail = %s, finished_at = now() "
                "where token = %s and target = %s",
                (str(error), token, target),
            )
        raise
    drop_stages(target, as_of)
    return done


def _swap_partition(
    conn: psycopg.Connection,
    target: str,
    as_of: date,
    token: int,
    stage_table: str,
    columns: list[str],
    old: str | None,
) -> None:
    parent = sql.Identifier("predictions", target)
    child = sql.Identifier("predictions", f"{target}_p{as_of:%Y%m%d}_t{token}")
    day = sql.Literal(as_of.isoformat())
    # The check lets ATTACH skip its scan, so that the lock on the parent is held for milliseconds.
    conn.execute(sql.SQL("create table {} (like {} including all, check (as_of = {}))").format(child, parent, day))
    conn.execute(
        sql.SQL("insert into {} ({cols}) select {cols} from {}").format(
            child, sql.Identifier("predictions_stage", stage_table), cols=_list(columns)
        )
    )
    conn.execute(sql.SQL("analyze {}").format(child))
    if old:
        conn.execute(sql.SQL("alter table {} detach partition {}").format(parent, sql.Identifier("predictions", old)))
    conn.execute(sql.SQL("alter table {} attach partition {} for values in ({})").format(parent, child, day))
    for leftover in _tables_of_day(conn, target, as_of):
        if leftover != f"{target}_p{as_of:%Y%m%d}_t{token}":
            conn.execute(sql.SQL("drop table {}").format(sql.Identifier("predictions", leftover)))


def _tables_of_day(conn: psycopg.Connection, target: str, as_of: date) -> list[str]:
    rows = conn.execute(
        "select tablename from pg_tables where schemaname = 'predictions' and tablename like %s",
        (f"{target}_p{as_of:%Y%m%d}_t%".replace("_", r"\_"),),
    ).fetchall()
    return [row[0] for row in rows]


def drop_stages(target: str, as_of: date) -> None:
    """Drop what attempts that are over have left beside."""
    with connect("scorer") as conn:
        rows = conn.execute(
            """
            select t.tablename from pg_tables t
            join ops.run_ledger l on l.stage_table = t.tablename
            where t.schemaname = 'predictions_stage' and l.target = %s and l.as_of = %s
              and (l.state in ('published', 'unchanged', 'refused')
                   or l.token < (select max(token) from ops.run_ledger where target = %s and as_of = %s))
            """,
            (_bare(target), as_of, _bare(target), as_of),
        ).fetchall()
        for (name,) in rows:
            conn.execute(sql.SQL("drop table if exists {}").format(sql.Identifier("predictions_stage", name)))


def rollback(target: str, to: date) -> list[date]:
    """Make ``to`` the newest day of a prediction table again; returns the days taken back.

    Their partitions are detached in one transaction and kept aside until their day is published again.
    """
    target = _bare(target)
    taken: list[date] = []

    def detach(conn: psycopg.Connection) -> Published:
        taken.clear()
        if conn.execute("select to_regclass(%s)", (f"predictions.{target}",)).fetchone() == (None,):
            raise PublishError(f"There is no prediction table {target}. A mart follows its night: rerun that.")
        conn.execute("select pg_advisory_xact_lock(hashtext(%s))", (f"publish:{target}",))
        live = conn.execute(
            "select as_of, token, n_rows, checksum from ops.publication where target = %s and as_of >= %s "
            "order by as_of",
            (target, to),
        ).fetchall()
        if not live or live[0][0] != to:
            known = conn.execute(
                "select string_agg(as_of::text, ', ' order by as_of desc) from ops.publication where target = %s",
                (target,),
            ).fetchone()
            published = known[0] if known and known[0] else "none"
            raise PublishError(f"predictions.{target} has nothing published as of {to}. Published days: {published}.")
        for as_of, token, _, _ in live[1:]:
            child = _partition(conn, target, as_of)
            if child:
                conn.execute(
                    sql.SQL("alter table {} detach partition {}").format(
                        sql.Identifier("predictions", target), sql.Identifier("predictions", child)
                    )
                )
            conn.execute("delete from ops.publication where target = %s and as_of = %s", (target, as_of))
            conn.execute(
                "update ops.run_ledger set state = 'rolled_back', detail = %s, finished_at = now() where token = %s",
                (f"rolled back to {to}", token),
            )
            taken.append(as_of)
        return Published(target, to, live[0][2], live[0][3], is_changed=bool(taken))

    with_lock_retries(detach)
    return taken


def main() -> None:
    """Publish every audited prediction table of a day: ``python -m include.warehouse.publish --as-of D``."""
    parser = argparse.ArgumentParser(description="Swap the day's audited predictions in")
    parser.add_argument("--as-of", type=parse_day, required=True)
    args = parser.parse_args()
    waiting = staged(args.as_of)
    refused = []
    for item in waiting:
        try:
            done = publish(item.target, item.as_of, item.token)
        except (PublishError, psycopg.Error) as error:
            refused.append(str(error))
            continue
        note = "swapped in" if done.is_changed else "already live, unchanged"
        print(f"predictions.{done.target} as of {done.as_of}: {done.n_rows:,} rows {note}")
    if refused:
        sys.exit("not published: " + "; ".join(refused))
    if not waiting:
        live = _published_targets(args.as_of)
        if not live:
            sys.exit(f"nothing is staged as of {args.as_of}: run the score step first")
        print(f"nothing new to publish as of {args.as_of}; live: {', '.join(live)}")


def _published_targets(as_of: date) -> list[str]:
    with connect("publisher") as conn:
        rows = conn.execute(
            "select p.target from ops.publication p where as_of = %s "
            "and to_regclass('predictions.' || p.target) is not null order by 1",
            (as_of,),
        ).fetchall()
    return [row[0] for row in rows]


if __name__ == "__main__":
    main()
