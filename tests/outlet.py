"""A day of the demo outlet's files, as tests write them."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from include.ingest.sources import load_source
from include.settings import settings
from include.warehouse.engine import connect

HEADERS = {
    "orders": "order_id,customer_email,customer_region,ordered_at,status,currency,updated_at",
    "order_items": "order_id,line,sku,vendor_code,quantity,unit_price,freight,updated_at",
    "payments": "order_id,payment_id,payment_type,installments,amount,paid_at",
    "shipments": "order_id,approved_at,handed_over_at,delivered_at,estimated_delivery_at,updated_at",
}


def drop(day: date, headers: dict[str, str] = HEADERS, **rows: Sequence[str]) -> Path:
    """Write the day's files: the lines of each entity that is named, no more than the header of the others."""
    folder = settings().home / "demo" / "outlet" / str(day)
    folder.mkdir(parents=True, exist_ok=True)
    for name, header in headers.items():
        (folder / f"{name}.csv").write_text("\n".join([header, *rows.get(name, [])]) + "\n")
    return folder


def forget() -> None:
    """Nothing of the outlet is known: no row, no landing, no unnamed column, no count and no verdict."""
    with connect() as conn:
        for name in load_source("demo_outlet").entities:
            conn.execute(f"truncate raw_demo_outlet.{name}, quarantine.{name}")
        conn.execute("truncate raw_demo_outlet._landed, quarantine._mended, ops.source_column")
        conn.execute("delete from ops.load_audit where source = 'demo_outlet'")
        conn.execute("delete from ops.quality_result where gate = 'raw'")
