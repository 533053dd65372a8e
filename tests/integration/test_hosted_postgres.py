"""EMPORIUM_DSN: a Postgres that is not ours, whose user is no superuser."""

import os
from pathlib import Path

import psycopg
import pytest

from include.services import postgres
from include.settings import settings
from include.warehouse import dsn
from include.warehouse.migrate import migrate
from tests.integration.conftest import free_port

pytestmark = pytest.mark.integration


@pytest.fixture
def hosted(tmp_path_factory, monkeypatch):
    """A server of its own with a user that may make roles and databases, and nothing more."""
    home = tmp_path_factory.mktemp("hosted")
    monkeypatch.setenv("EMPORIUM_HOME", str(home))
    monkeypatch.setenv("EMPORIUM_PG_PORT", str(free_port()))
    monkeypatch.delenv("EMPORIUM_DSN", raising=False)
    settings.cache_clear()
    postgres.start()
    try:
        with psycopg.connect(dsn(), autocommit=True) as conn:
            conn.execute("create role shopkeeper login createrole createdb password 'p/w'")
            conn.execute("create database warehouse owner shopkeeper")
        url = f"postgresql://shopkeeper:p%2Fw@127.0.0.1:{settings().pg_port}/warehouse"
        monkeypatch.setenv("EMPORIUM_DSN", url)
        settings.cache_clear()
        yield Path(home)
    finally:
        os.environ.pop("EMPORIUM_DSN", None)
        settings.cache_clear()
        postgres.stop()
        monkeypatch.undo()
        settings.cache_clear()


def test_migrations_need_no_superuser_and_roles_stay_apart(hosted):
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
