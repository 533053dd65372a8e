"""Every control total and check of a business day, from what is in the tables now.

``./emporium audit --as-of D`` prints these and exits 1 when one fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import psycopg
from deltalake import DeltaTable
from psycopg import sql

from include import lake
from include.ingest import bronze
from include.ingest.connectors import connector_class
from include.ingest.load import VERDICT
from include.ingest.sources import sources
from include.warehouse.engine import connect
from include.warehouse.publish import checksum

GATES = ("raw", "warehouse", "features", "predictions")


@dataclass(frozen=True)
class Line:
    """One control: what was expected, what is there."""

    area: str
    subject: str
    is_ok: bool
    detail: str


def audit(as_of: date) -> list[Line]:
    """Every control of the day; empty only when nothing was ever loaded for it. Role: owner (reads all)."""
    with connect() as conn:
        return [line for check in CHECKS for line in check(conn, as_of)]


def loads(conn: psycopg.Connection, as_of: date) -> Iterator[Line]:
    """rows in = loaded + duplicate + quarantined, and the raw and quarantine tables hold just that many."""
    rows = conn.execute(
        "select source, entity, n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit "
        "where partition_on = %s order by 1, 2",
        (as_of,),
    ).fetchall()
    if not rows:
        yield Line("load", "all sources", False, f"nothing was loaded as of {as_of}")
    for source, entity, n_in, n_loaded, n_duplicate, n_quarantined in rows:
        there = _n_there(conn, source, entity, as_of)
        held = (0,)
        if conn.execute("select to_regclass(%s)", (f"quarantine.{entity}",)).fetchone() != (None,):
            held = conn.execute(
                sql.SQL(
                    "select count(distinct (file, line)) from {} "
                    "where partition_on = %s and source = %s and not is_mended"
                ).format(sql.Identifier("quarantine", entity)),
                (as_of, source),
            ).fetchone() or (0,)
        ok = n_in == n_loaded + n_duplicate + n_quarantined and there == n_loaded and held[0] == n_quarantined
        yield Line(
            "load",
            f"{source}.{entity}",
            ok,
            f"{n_in:,} in = {n_loaded:,} loaded + {n_duplicate:,} duplicate + {n_quarantined:,} quarantined"
            + ("" if ok else f"; there are {there:,}, quarantine has {held[0]:,}"),
        )


def _n_there(conn: psycopg.Connection, source: str, entity: str, as_of: date) -> int:
    """Rows of the day in the raw table; of events, which have none, in ``lake/silver/events``."""
    if conn.execute("select to_regclass(%s)", (f'raw_{source}."{entity}"',)).fetchone() != (None,):
        count = sql.SQL("select count(*) from {} where partition_on = %s").format(
            sql.Identifier(f"raw_{source}", entity)
        )
        row = conn.execute(count, (as_of,)).fetchone()
        return row[0] if row else 0
    uri = lake.table_uri("silver", "events")
    if not lake.exists(uri):
        return 0
    of_day = [("source", "=", source), ("known_month", "=", as_of.replace(day=1)), ("known_on", "=", as_of)]
    return sum(piece.num_rows for piece in lake.scan(DeltaTable(uri), of_day, columns=["known_on"]))


def batches(conn: psycopg.Connection, as_of: date) -> Iterator[Line]:
    """Each entity's day in bronze is, by the digest of its rows, what was landed and what the gate judged."""
    for source in sources():
        landed = sql.Identifier(source.raw_schema, "_landed")
        if conn.execute("select to_regclass(%s)", (f"{source.raw_schema}._landed",)).fetchone() == (None,):
            continue
        rows = conn.execute(
            sql.SQL(
                """select l.entity, l.n_rows, l.batch, q.observed ->> 'batch' from {} l
                   left join ops.quality_result q on q.gate = 'raw' and q.rule = %s and q.as_of = l.partition_on
                     and q.target = %s || '.' || l.entity
                   where l.partition_on = %s and l.entity = any(%s) order by 1"""
            ).format(landed),
            (VERDICT, source.source, as_of, list(source.entities)),
        ).fetchall()
        for name, n_rows, batch, judged in rows:
            n_held, held = bronze.held(source.source, name, as_of, as_of).get(as_of, (0, bronze.NOTHING))
            made = held
            if not connector_class(source.type).lands_in_spark:
                # A stream's batches are digests of its files, which bronze no longer knows.
                made = bronze.digest_of(bronze.everything(source.source, name, as_of))
            ok = held == batch == judged == made and n_held == n_rows
            yield Line(
                "bronze",
                f"{source.source}.{name}",
                ok,
                f"{n_rows:,} rows, batch {batch}"
                + ("" if ok else f"; bronze has {n_held:,} of batch {held}, content {made}; judged was {judged}"),
            )


def quality(conn: psycopg.Connection, as_of: date) -> Iterator[Line]:
    """Every gate has spoken and every critical rule passed; a broken row is a warning, since it is set aside."""
    rows = conn.execute(
        "select gate, target, rule, severity, is_passed, n_failed, n_checked from ops.quality_result "
        "where as_of = %s and (not is_passed) order by 1, 2, 3",
        (as_of,),
    ).fetchall()
    counted = conn.execute(
        "select gate, count(*) filter (where is_passed), count(*) from ops.quality_result where as_of = %s "
        "group by 1 order by 1",
        (as_of,),
    ).fetchall()
    for gate in sorted(set(GATES) - {row[0] for row in counted}):
        yield Line("gate", gate, False, f"it has no verdict as of {as_of}")
    for gate, n_passed, n_rules in counted:
        critical = [row for row in rows if row[0] == gate and row[3] == "critical"]
        detail = f"{n_passed} of {n_rules} rules passed"
        failed = [f"{row[1]} {row[2]} ({row[5]} of {row[6]})" for row in rows if row[0] == gate]
        yield Line("gate", gate, not critical, detail + (f"; {', '.join(failed[:4])}" if failed else ""))


def reconciliation(conn: psycopg.Connection, as_of: date) -> Iterator[Line]:
    """What BI reads adds up: orders with their items, and with every version the lake was given."""
    if conn.execute("select to_regclass('published.fact_order')").fetchone() == (None,):
        yield Line("marts", "fact_order", False, "never published")
        return
    rows = conn.execute(
        """
        select marketplace, o.n, o.amount, i.amount, v.n
        from (select marketplace, count(*) n, sum(item_amount) amount from published.fact_order group by 1) o
        left join (select marketplace, sum(line.item_amount) amount from published.fact_order_item line
                   join published.fact_order using (marketplace, order_id) group by 1) i using (marketplace)
        left join (select marketplace, count(distinct order_id) n from core.version_orders group by 1) v
          using (marketplace)
        order by 1
        """
    ).fetchall()
    for marketplace, n_orders, orders_amount, items_amount, n_versions in rows:
        ok = (orders_amount or 0) == (items_amount or 0) and n_orders == n_versions
        yield Line(
            "marts",
            marketplace,
            ok,
            f"{n_orders:,} orders, {orders_amount:,.2f} in orders = {items_amount or 0:,.2f} in items"
            + ("" if n_orders == n_versions else f"; {n_versions} orders in the versions"),
        )


def predictions(conn: psycopg.Connection, as_of: date) -> Iterator[Line]:
    """Published rows are, by count and checksum, those that were audited."""
    tables = conn.execute(
        "select relname from pg_class c join pg_namespace n on n.oid = relnamespace "
        "where nspname = 'predictions' and relkind = 'p' order by 1"
    ).fetchall()
    for (table,) in tables:
        known = conn.execute(
            "select n_rows, checksum, token from ops.publication where target = %s and as_of = %s", (table, as_of)
        ).fetchone()
        if known is None:
            yield Line("predictions", table, False, f"not published as of {as_of}")
            continue
        child = conn.execute(
            "select relname from pg_inherits join pg_class on pg_class.oid = inhrelid "
            "where inhparent = %s::regclass and pg_get_expr(relpartbound, pg_class.oid) = %s",
            (f"predictions.{table}", f"FOR VALUES IN ('{as_of}')"),
        ).fetchone()
        columns = [
            row[0]
            for row in conn.execute(
                "select column_name from information_schema.columns where table_schema = 'predictions' "
                "and table_name = %s and column_name <> 'published_at' order by ordinal_position",
                (table,),
            )
        ]
        n_rows, digest = checksum(conn, "predictions", child[0], columns) if child else (0, "")
        ok = (n_rows, digest) == known[:2]
        yield Line("predictions", table, ok, f"{n_rows:,} rows, checksum {digest}, token {known[2]}")


def models(conn: psycopg.Connection, as_of: date) -> Iterator[Line]:
    """Every use case has a champion as of the day."""
    rows = conn.execute(
        "select use_case, champion_name, champion_version, reason from ops.model_decision where as_of = %s order by 1",
        (as_of,),
    ).fetchall()
    for use_case, name, version, reason in rows:
        yield Line("model", use_case, True, f"{name} version {version}: {reason}")
    ever = conn.execute("select distinct use_case from ops.model_decision order by 1").fetchall()
    missing = [use_case for (use_case,) in ever if use_case not in {row[0] for row in rows}]
    for use_case in missing or ([] if rows else ["every use case"]):
        yield Line("model", use_case, False, f"no decision as of {as_of}")


CHECKS = (loads, batches, quality, reconciliation, models, predictions)
