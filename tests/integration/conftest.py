"""One embedded Postgres for the integration tier, in a home of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from include import ops
from include.services import postgres
from include.settings import ROOT, settings
from include.warehouse.engine import connect
from include.warehouse.migrate import migrate
from tests.conftest import free_port

if TYPE_CHECKING:
    from tests.integration.mariadb import MariaDB


def mark_build(is_green: bool) -> None:
    """Record that the newest dbt build is green, or is not."""
    with connect("transformer") as conn:
        ops.record_checks(
            conn, [ops.Check("warehouse", "core", date(2025, 1, 1), "build_is_green", "critical", is_green, 1, 0)]
        )


def drop_models() -> None:
    """Drop what dbt built, so that a module's tests see the tables that they make, and no others."""
    with connect("transformer") as conn:
        for schema in ("core", "intermediate", "staging"):
            kinds = conn.execute(
                "select case table_type when 'VIEW' then 'view' else 'table' end, table_name "
                "from information_schema.tables where table_schema = %s and table_name !~ 'probe'",
                (schema,),
            ).fetchall()
            for kind, name in kinds:
                conn.execute(f"drop {kind} if exists {schema}.{name} cascade")  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def warehouse() -> Iterator[Path]:
    """A migrated warehouse; yields its home. The environment points at it for the whole session."""
    home = Path(tempfile.mkdtemp(prefix="emporium-it-"))
    home.chmod(0o755)
    before = dict(os.environ)
    os.environ |= {"EMPORIUM_HOME": str(home), "EMPORIUM_PG_PORT": str(free_port())}
    os.environ.setdefault("EMPORIUM_JARS", str(ROOT / ".emporium" / "jars"))
    os.environ.pop("EMPORIUM_DSN", None)
    settings.cache_clear()
    postgres.start()
    try:
        migrate()
        # Tests make their own tables in core: for what reads it they stand for a green build.
        mark_build(is_green=True)
        yield home
    finally:
        postgres.stop()
        os.environ.clear()
        os.environ.update(before)
        settings.cache_clear()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb() -> Iterator["MariaDB"]:
    """One MariaDB for all tests; each makes databases of its own."""
    from tests.integration.mariadb import missing, server

    if reason := missing():
        pytest.skip(reason)
    with server() as found:
        yield found
