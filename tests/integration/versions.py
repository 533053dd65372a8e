"""Version tables in the scratch warehouse, beside whatever other tests built there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import sql

from include.warehouse.engine import connect

DDL = """
create table core.version_orders (
  marketplace text, order_id text, customer_id text, ordered_at timestamptz, ordered_on date, status text,
  approved_at timestamptz, handed_over_at timestamptz, delivered_at timestamptz, estimated_delivery_at timestamptz,
  is_deleted boolean default false, known_at timestamptz, known_on date);
create table core.version_order_items (
  marketplace text, order_id text, order_item_id integer, product_id text, vendor_id text, quantity integer,
  item_amount numeric(18, 4), freight_amount numeric(18, 4), ordered_on date,
  is_deleted boolean default false, known_at timestamptz, known_on date);
create table core.version_products (
  marketplace text, product_id text, category text, list_price_amount numeric(18, 4),
  is_deleted boolean default false, known_at timestamptz, known_on date);
"""
TABLES = ("orders", "order_items", "products")


@contextmanager
def empty_version_tables() -> Iterator[None]:
    """Fresh, empty ``core.version_*``; what was there is put back at the end, and nothing counts as exported."""
    with connect("transformer") as conn:
        present = [t for t in TABLES if conn.execute("select to_regclass(%s)", (f"core.version_{t}",)).fetchone()[0]]
        for table in present:
            conn.execute(f"alter table core.version_{table} rename to kept_{table}")
        conn.execute(DDL)
    _forget_exports()
    try:
        yield
    finally:
        _forget_exports()
        with connect("transformer") as conn:
            for table in TABLES:
                conn.execute(f"drop table if exists core.version_{table}")
            for table in present:
                conn.execute(f"alter table core.kept_{table} rename to version_{table}")


def _forget_exports() -> None:
    with connect("loader") as conn:
        conn.execute("delete from ops.lake_export")


def insert(table: str, rows: list[dict[str, Any]]) -> None:
    """Versions, given as dicts; names that are not columns (``known_month``) are left out."""
    with connect("transformer") as conn:
        columns = [
            row[0]
            for row in conn.execute(
                "select column_name from information_schema.columns where table_schema = 'core' and table_name = %s "
                "order by ordinal_position",
                (f"version_{table}",),
            )
        ]
        query = sql.SQL("copy core.{} from stdin").format(sql.Identifier(f"version_{table}"))
        with conn.cursor().copy(query) as copy:
            for row in rows:
                copy.write_row([row[name] for name in columns])
