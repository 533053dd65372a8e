"""Export of the version tables: the lake holds what the warehouse holds, whatever happened in between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from include import lake
from include.settings import settings
from include.warehouse import export as exporting
from include.warehouse.engine import connect
from include.warehouse.export import ExportError, export
from tests.integration.versions import empty_version_tables, insert

pytestmark = pytest.mark.integration

MONTHS = [date(2025, month, 1) for month in range(1, 7)]


@pytest.fixture
def versions(warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Six months of orders in the warehouse, and a lake of this test's own, still empty; yields the lake."""
    monkeypatch.setenv("EMPORIUM_LAKE", str(tmp_path / "lake"))
    settings.cache_clear()
    with empty_version_tables():
        insert("orders", [order(n) for n in range(180)])
        yield tmp_path / "lake"
    monkeypatch.undo()
    settings.cache_clear()


def order(n: int, **values: object) -> dict:
    day = MONTHS[0] + timedelta(days=n)
    at = datetime(2025, 1, 1, 12, 0, 0, 123456, tzinfo=UTC) + timedelta(days=n)
    return {
        "marketplace": "m", "order_id": str(n), "customer_id": None if n % 7 == 0 else f"c{n}", "ordered_at": at,
        "ordered_on": day, "status": "created", "approved_at": None, "handed_over_at": None, "delivered_at": None,
        "estimated_delivery_at": None, "is_deleted": False, "known_at": at, "known_on": day,
    } | values  # fmt: skip


def in_warehouse() -> list[tuple]:
    with connect("loader") as conn:
        return conn.execute("select * from core.version_orders order by order_id, known_on").fetchall()


def in_lake() -> list[tuple]:
    rows = lake.read(lake.table_uri("core", "orders")).to_pylist()
    assert all(row.pop("known_month") == row["known_on"].replace(day=1) for row in rows)
    return sorted((tuple(row.values()) for row in rows), key=lambda row: (row[1], row[12]))


def files() -> dict[str, set[str]]:
    """Month -> its files."""
    found: dict[str, set[str]] = {}
    for path in DeltaTable(lake.table_uri("core", "orders")).file_uris():
        name = Path(path)
        found.setdefault(name.parent.name, set()).add(name.name)
    return found


def n_months() -> list[int]:
    return [result.n_months for result in export()]


def test_lake_holds_every_row_and_a_second_export_writes_nothing(versions: Path) -> None:
    assert n_months() == [6, 0, 0]
    assert in_lake() == in_warehouse()
    before = files()
    assert n_months() == [0, 0, 0]
    assert files() == before
    # Tables without a row are there all the same, with their columns.
    products = lake.read(lake.table_uri("core", "products"))
    assert (products.num_rows, products.schema.field("known_at").type) == (0, pa.timestamp("us", tz="UTC"))


def test_only_the_changed_month_is_rewritten(versions: Path) -> None:
    export()
    before = files()
    with connect("transformer") as conn:
        conn.execute("update core.version_orders set status = 'canceled' where known_on = '2025-03-09'")
    assert n_months() == [1, 0, 0]
    after = files()
    assert {month for month in after if after[month] != before[month]} == {"known_month=2025-03-01"}
    assert in_lake() == in_warehouse()


def test_values_that_csv_could_confuse_arrive_as_they_are(versions: Path) -> None:
    odd = ["", 'say "hi"', "a,b", "two\nlines", "\\N", "null", "naïve ☕", " spaces "]
    with connect("transformer") as conn:
        conn.execute("truncate core.version_orders")
    insert("orders", [order(n, status=text) for n, text in enumerate(odd)])
    insert("orders", [order(99, known_at=datetime(2025, 1, 31, 23, 59, 59, 999999, tzinfo=UTC), status=None)])
    export()
    assert in_lake() == in_warehouse()
    assert {row[5] for row in in_lake()} == {*odd, None}


def test_kill_between_delta_and_the_ledger_is_healed(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export()
    first = in_warehouse()
    with connect("transformer") as conn:
        conn.execute("update core.version_orders set status = 'shipped' where known_on = '2025-03-09'")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            export()
    assert in_lake() != first
    # The warehouse goes back to what was last recorded: count and checksum alone would say that nothing changed.
    with connect("transformer") as conn:
        conn.execute("update core.version_orders set status = 'created' where known_on = '2025-03-09'")
    assert n_months() == [1, 0, 0]
    assert in_lake() == in_warehouse() == first


def test_kill_before_delta_is_healed(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting.lake, "replace_partition", killed)
        with pytest.raises(KeyboardInterrupt):
            export()
    assert n_months() == [6, 0, 0]
    assert in_lake() == in_warehouse()


def test_wiped_lake_is_filled_again(versions: Path) -> None:
    export()
    shutil.rmtree(versions)
    assert n_months() == [6, 0, 0]
    assert in_lake() == in_warehouse()


def test_month_that_the_lake_lost_comes_back_alone(versions: Path) -> None:
    export()
    DeltaTable(lake.table_uri("core", "orders")).delete("known_month = '2025-02-01'")
    assert n_months() == [1, 0, 0]
    assert in_lake() == in_warehouse()


def test_month_that_left_the_warehouse_leaves_the_lake(versions: Path) -> None:
    export()
    with connect("transformer") as conn:
        conn.execute("delete from core.version_orders where known_on >= '2025-06-01'")
    assert next((result.n_months, result.n_emptied) for result in export()) == (0, 1)
    assert in_lake() == in_warehouse()
    assert n_months() == [0, 0, 0]


def test_small_commits_lose_nothing(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MONTHS_PER_COMMIT", 2)
    monkeypatch.setattr(exporting, "ROWS_PER_COMMIT", 40)
    export()
    assert in_lake() == in_warehouse()


def test_absent_tables(versions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with connect("transformer") as conn:
        conn.execute("drop table core.version_products")
    export()
    assert lake.read(lake.table_uri("core", "products")).num_rows == 0
    with connect("transformer") as conn:
        conn.execute("drop table core.version_orders")
    with pytest.raises(ExportError, match="build` first"):
        export()
    assert exporting.main(["--as-of", "2025-06-30"]) == 1
    assert "core.version_orders is not there" in capsys.readouterr().err
