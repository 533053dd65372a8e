"""What tests of ingest share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.settings import settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home that the settings point at, with a key for pseudonyms that is the same in every run."""
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    monkeypatch.setenv("EMPORIUM_SECRET_PSEUDONYM_KEY", "a key for tests")
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()
