"""EMPORIUM_DSN: a Postgres that is not ours, whose user is no superuser."""

import os
import shutil
import tempfile
from datetime import date
from pathlib import Path

import psycopg
import pytest

from include.services import postgres
from include.settings import settings
from include.warehouse import access, dsn, marts
from include.warehouse.migrate import migrate
from tests.integration.conftest import free_port, mark_build

pytestmark = pytest.mark.integration


@pytest.fixture
def hosted(monkeypatch):
    """A server of its own with a user that may make roles and databases, and nothing more."""
    home = Path(tempfile.mkdtemp(prefix="emporium-hosted-"))
    home.chmod(0o755)
    monkeypatch.setenv("EMPORIUM_HOME", str(home))
    monkeypatch.setenv("EMPORIUM_PG_PORT", str(free_port()))
    monkeypatch.delenv("EMPORIUM_DSN", raising=False)
    settings.cache_clear()
    try:
        postgres.start()
        with psycopg.connect(dsn(), autocommit=True) as conn:
            conn.execute("create role shopkeeper login createrole createdb password 'p/w'")
            conn.execute("create database warehouse owner shopkeeper")
        url = f"postgresql://shopkeeper:p%2Fw@127.0.0.1:{settings().pg_port}/warehouse"
        monkeypatch.setenv("EMPORIUM_DSN", url)
        settings.cache_clear()
        yield home
    finally:
        os.environ.pop("EMPORIUM_DSN", None)
        settings.cache_clear()
        postgres.stop()
        monkeypatch.undo()
        settings.cache_clear()
        shutil.rmtree(home, ignore_errors=True)


def test_migrations_and_vendors_need_no_superuser_and_roles_stay_apart(hosted):
    assert migrate() == migrate()
    with psycopg.connect(dsn("publisher")) as conn:
        conn.execute("create table published.probe (a int)")
        conn.execute("create view bi.probe as select * from published.probe")
    with psycopg.connect(dsn("bi_reader")) as conn:
        assert conn.execute("select * from bi.probe").fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select * from published.probe")
    with psycopg.connect(dsn("transformer")) as conn:
        conn.execute("create table core.probe (a int)")
    with psycopg.connect(dsn("publisher")) as conn:
        assert conn.execute("select * from core.probe").fetchall() == []
    with psycopg.connect(dsn("transformer")) as conn:
        conn.execute("create table core.dim_vendor (vendor_id text, marketplace text, vendor_name text)")
        conn.execute("create unique index on core.dim_vendor (vendor_id, marketplace)")
        conn.execute("insert into core.dim_vendor values ('1', 'shop', 'one'), ('2', 'shop', 'two')")
    mark_build(is_green=True)
    marts.publish_core(date(2025, 1, 1))
    access.add_vendor("portal", "shop", "2")
    with psycopg.connect(dsn("portal")) as conn:
        assert conn.execute("select vendor_name from bi.dim_vendor").fetchall() == [("two",)]
    access.remove_vendor("portal")
    assert access.vendor_logins() == []
