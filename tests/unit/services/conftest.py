"""A home of its own for every test, in which nothing runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.services import postgres
from include.settings import settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home that the settings point at, on the default ports, with the embedded Postgres."""
    for name in ("DSN", "AIRFLOW_URL", "MLFLOW_URL", "JARS", "PG_PORT", "AIRFLOW_PORT", "MLFLOW_PORT", "DOCS_PORT"):
        monkeypatch.delenv(f"EMPORIUM_{name}", raising=False)
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path / "home"))
    # Under root and a private checkout the binaries would be copied to where the system user reaches them.
    monkeypatch.setattr(postgres, "system_user", lambda: None)
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()
