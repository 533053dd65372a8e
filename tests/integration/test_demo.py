"""The demo marketplace on a real Postgres: idempotent, repeatable, healed after a kill, truth kept secret."""

import hashlib
import signal
import subprocess
import sys

import psycopg
import pytest

from include.demo import SMALL, fill
from include.settings import ROOT, settings
from include.warehouse.engine import ROLES, connect
from tests.integration.bad_batches import plant_bad_order_items, restore

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def filled(warehouse):
    return fill(SMALL)


def file_hashes() -> dict[str, str]:
    folder = settings().home / "demo"
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table_checksums() -> dict[str, str]:
    with connect(database="shop") as conn:
        names = conn.execute(
            "select schemaname, tablename from pg_tables where schemaname in ('shop', 'truth') order by 1, 2"
        ).fetchall()
        return {
            f"{schema}.{name}": conn.execute(
                "select count(*) || md5(coalesce(string_agg(t::text, '|' order by t::text), '')) "
                f'from "{schema}"."{name}" t'
            ).fetchone()[0]
            for schema, name in names
        }


def test_a_second_fill_is_a_no_op(filled):
    before = table_checksums()
    again = fill(SMALL)
    assert not again.is_new
    assert again.seconds < 1
    assert again.counts == filled.counts
    assert table_checksums() == before


def test_the_same_seed_fills_the_same_rows_and_bytes(filled):
    tables, files = table_checksums(), file_hashes()
    assert tables["shop.oc_order"] != tables["shop.oc_order_product"]
    (settings().home / "demo" / "manifest.json").unlink()
    assert fill(SMALL).is_new
    assert table_checksums() == tables
    assert file_hashes() == files


def test_lost_files_are_made_again(filled):
    files = file_hashes()
    (settings().home / "demo" / "clicks").rename(settings().home / "demo" / "elsewhere")
    assert fill(SMALL).is_new
    for path in (settings().home / "demo" / "elsewhere").iterdir():
        path.unlink()
    (settings().home / "demo" / "elsewhere").rmdir()
    assert file_hashes() == files


@pytest.mark.parametrize(
    "moment",
    ["marketplace._write_files", "marketplace._copy", "marketplace._load", "os.replace", "marketplace._swap_in"],
)
def test_a_killed_fill_is_healed_by_the_next(filled, moment):
    tables, files = table_checksums(), file_hashes()
    # Kill -9 right after the step (right before the last rename of the swap), of a fill of another size.
    code = f"""
import os, signal
from dataclasses import replace
from include.demo import SMALL, marketplace
step = {moment}
def step_and_die(*args):
    if "{moment}" != "os.replace":
        step(*args)
    os.kill(os.getpid(), signal.SIGKILL)
{moment} = step_and_die
marketplace.fill(replace(SMALL, fraud_bursts=3))
"""
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert table_checksums() == tables, "a killed fill leaves the database as it was"
    fill(SMALL)
    assert table_checksums() == tables
    assert file_hashes() == files


@pytest.mark.parametrize("role", [*ROLES, "shop_reader"])
def test_no_role_reads_the_truth(filled, role):
    refusals = (psycopg.errors.InsufficientPrivilege, psycopg.OperationalError)
    with pytest.raises(refusals, match="permission denied"), connect(role, database="shop") as conn:
        conn.execute("select * from truth.dirt limit 1")


def test_the_truth_is_in_no_other_database(filled):
    with connect() as conn:
        assert conn.execute("select to_regnamespace('truth')").fetchone() == (None,)


def test_shop_reader_reads_the_shop_and_changes_nothing(filled):
    with connect("shop_reader", database="shop", autocommit=True) as conn:
        names = conn.execute("select tablename from pg_tables where schemaname = 'shop'").fetchall()
        assert len(names) == 21
        for (name,) in names:
            assert conn.execute(f'select count(*) from shop."{name}"').fetchone()[0] > 0, name
        for statement in ("delete from shop.oc_order", "create table shop.mine (i int)", "create schema mine"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)


def test_shop_reader_reads_tables_made_later(filled):
    with connect(database="shop") as owner:
        owner.execute("create table shop.oc_later as select 1 as one")
    try:
        with connect("shop_reader", database="shop") as conn:
            assert conn.execute("select one from shop.oc_later").fetchone() == (1,)
    finally:
        with connect(database="shop") as owner:
            owner.execute("drop table shop.oc_later")


def test_the_reader_finds_a_day_by_index(filled):
    with connect("shop_reader", database="shop") as conn:
        conn.execute("set enable_seqscan = off")
        plan = conn.execute(
            "explain select * from shop.oc_order where date_added >= '2025-12-31' and date_added < '2026-01-01'"
        ).fetchall()
    assert any("Index" in line for (line,) in plan), plan


def test_a_bad_batch_is_over_the_threshold_and_can_be_undone(filled):
    files = file_hashes()
    day = SMALL.last_day
    n_broken = plant_bad_order_items(day)
    path = settings().home / "demo" / "outlet" / day.isoformat() / "order_items.csv"
    rows = path.read_text().splitlines()[1:]
    assert sum("twelve" in row for row in rows) == n_broken
    assert n_broken / len(rows) > 0.05
    restore(day)
    assert file_hashes() == files


def test_the_command_says_what_it_did(filled):
    done = subprocess.run(
        [sys.executable, "-m", "include.demo", "fill", "--small"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "already filled" in done.stdout
