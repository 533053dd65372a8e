"""A source is added by one YAML and its staging models alone; one that was, from its file to its sessions in core."""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import zstandard

from expectations.raw import main as gate_main
from include import dbt
from include.ingest.__main__ import main as ingest_main
from include.ingest.extract import span
from include.ingest.sources import load_source
from include.ingest.tables import prepare
from include.services import jars
from include.settings import ROOT, settings
from include.warehouse.engine import connect
from tests.unit.test_dbt_project import models, parse, parsing_home

pytestmark = pytest.mark.integration

SOURCE = "eshop_clicks"
FIRST, LAST = date(2008, 4, 1), date(2008, 4, 3)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with parsing_home(tmp_path):
        yield tmp_path


def test_a_source_is_added_by_its_yaml_and_its_staging_models_alone(home: Path) -> None:
    project = home / "dbt_project"
    shutil.copytree(dbt.PROJECT, project)
    folder = project / "models" / "staging" / "corner_shop"
    folder.mkdir()
    (folder / "_corner_shop.yml").write_text("sources: [{name: corner_shop, tables: [{name: o}]}]")
    (folder / "stg_corner_shop__orders.sql").write_text("select * from {{ source('corner_shop', 'o') }}")
    variables = dbt.variables()
    variables["sources"]["corner_shop"] = {"marketplace": "corner_shop", "currency": "EUR", "provides": ["orders"]}

    manifest = parse(project, home / "target", variables)

    parents = models(manifest, "intermediate")["int_orders__versions"]["depends_on"]["nodes"]
    assert "model.emporium.stg_corner_shop__orders" in parents
    assert "model.emporium.stg_olist__orders" in parents


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    """The folder of the dump."""
    found = shared_data / "clickstream"
    if not found.is_dir():
        pytest.skip("the e-shop click stream (../shared/data/clickstream) is not on this machine")
    return found


@pytest.fixture(scope="module")
def loaded(folder: Path, warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Three days by the commands of the night."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_LAKE", str(tmp_path_factory.mktemp("lake")))
        patch.setenv("EMPORIUM_JARS", os.environ.get("EMPORIUM_JARS", str(ROOT / ".emporium" / "jars")))
        settings.cache_clear()
        jars.fetch()
        prepare()
        days = ["--source", SOURCE, "--from", str(FIRST), "--as-of", str(LAST)]
        assert ingest_main(["land", *days, "--data", str(folder)]) == 0
        assert gate_main(days) == 0
        assert ingest_main(["load", *days]) == 0
        command = [sys.executable, "-m", "spark_jobs.sessions", *days]
        built = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300)
        assert built.returncode == 0, built.stderr
        assert ingest_main(["close", *days]) == 0
        assert dbt.run("run", ["--select", "+fact_session"]) == 0
        yield
        with connect() as conn:
            conn.execute(f"truncate raw_{SOURCE}.sessions, raw_{SOURCE}._landed")
            for table in ("load_audit", "source_column"):
                conn.execute(f"delete from ops.{table} where source = %s", (SOURCE,))
            conn.execute("delete from ops.quality_result where target like %s", (f"{SOURCE}.%",))
        with connect("transformer") as conn:
            conn.execute("drop table core.fact_session cascade")
            views = conn.execute("select viewname from pg_views where schemaname = 'staging'").fetchall()
            for (name,) in views:
                conn.execute(f"drop view staging.{name} cascade")
    settings.cache_clear()


def _clicks(folder: Path) -> Iterator[tuple[date, dict[str, str]]]:
    """The file as its own reader sees it, nothing of ingest."""
    text = zstandard.ZstdDecompressor().stream_reader((folder / "e-shop_clothing_2008.csv.zst").open("rb"))
    for row in csv.DictReader(io.TextIOWrapper(text), delimiter=";"):
        yield date(int(row["year"]), int(row["month"]), int(row["day"])), row


def _query(text: str, *values: object) -> list[tuple]:
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def test_the_dump_says_its_span_and_every_row_of_it_is_read(folder: Path) -> None:
    days = [day for day, _ in _clicks(folder)]
    assert span(load_source(SOURCE), folder) == (min(days), max(days))


def test_every_click_of_the_days_is_counted_and_none_is_lost(loaded: None, folder: Path) -> None:
    expected = Counter(day for day, _ in _clicks(folder) if FIRST <= day <= LAST)
    found = _query(
        "select partition_on, n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit where source = %s", SOURCE
    )
    assert {day: counts for day, *counts in found} == {day: [n, n, 0, 0] for day, n in expected.items()}


def test_sessions_in_core_are_those_of_the_file(loaded: None, folder: Path) -> None:
    clicks = defaultdict(list)
    for day, row in _clicks(folder):
        if FIRST <= day <= LAST:
            clicks[day, row["session ID"]].append(int(row["order"]))
    expected = {
        (visitor, day, *(datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=at)
                         for at in (min(orders), max(orders))), len(orders), len(orders), 0, 0, None, None, False)
        for (day, visitor), orders in clicks.items()
    }  # fmt: skip
    assert len(expected) > 400
    found = _query(
        "select visitor_id, session_on, started_at, ended_at, n_events, n_product_views, n_cart_adds, n_purchases, "
        "customer_id, campaign, is_bot from core.fact_session where marketplace = 'eshop_clothing'"
    )
    assert len(found) == len(expected)
    assert set(found) == expected
