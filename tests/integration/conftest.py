"""One embedded Postgres for the integration tier, in a home of its own."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.services import postgres
from include.settings import settings
from include.warehouse.migrate import migrate


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def warehouse() -> Iterator[Path]:
    """A migrated warehouse; yields its home. The environment points at it for the whole session."""
    home = Path(tempfile.mkdtemp(prefix="emporium-it-"))
    home.chmod(0o755)
    before = dict(os.environ)
    os.environ |= {"EMPORIUM_HOME": str(home), "EMPORIUM_PG_PORT": str(free_port())}
    os.environ.pop("EMPORIUM_DSN", None)
    settings.cache_clear()
    postgres.start()
    try:
        migrate()
        yield home
    finally:
        postgres.stop()
        os.environ.clear()
        os.environ.update(before)
        settings.cache_clear()
        import shutil

        shutil.rmtree(home, ignore_errors=True)
