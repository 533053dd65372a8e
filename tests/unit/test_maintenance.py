"""Lake care of folders, without a lake."""

import os
from pathlib import Path

from include import maintenance


def test_a_folder_that_cannot_be_cared_for_is_said_to_have_failed():
    def do():
        raise PermissionError(13, "Permission denied", "stray")

    found = maintenance._tried("airflow/logs", do)
    assert (found.name, found.is_failed) == ("airflow/logs", True)
    assert "Permission denied: 'stray'" in found.note


def test_a_file_that_vanishes_meanwhile_is_no_failure_and_old_ones_go(tmp_path, monkeypatch):
    for name in ("old.log", "new.log"):
        (tmp_path / name).write_text("text")
    os.utime(tmp_path / "old.log", (0, 0))
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: [*listed(self, pattern), self / "vanished.log"])
    found = maintenance._old_files("airflow/logs", tmp_path, 7)
    assert (found.n_before, found.n_removed, found.is_failed) == (2, 1, False)
    assert [path.name for path in tmp_path.iterdir()] == ["new.log"]
