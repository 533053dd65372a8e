"""`make docs`: what is shown, and what is said where it cannot be."""

import functools
import http.server
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from include import dbt, docs
from include.settings import ROOT, settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose warehouse is down, with ports of its own."""
    with socket.socket() as pg, socket.socket() as page:
        for variable, probe in (("EMPORIUM_PG_PORT", pg), ("EMPORIUM_DOCS_PORT", page)):
            probe.bind(("127.0.0.1", 0))
            monkeypatch.setenv(variable, str(probe.getsockname()[1]))
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    monkeypatch.delenv("EMPORIUM_DSN", raising=False)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def page(text: str = "lineage") -> None:
    dbt.docs_site().parent.mkdir()
    dbt.docs_site().write_text(text)
    dbt.docs_site().with_name("fingerprint").write_text(dbt.docs_fingerprint())


def test_without_a_warehouse_and_a_page_it_says_what_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main([]) == 1
    assert "`./emporium up` first" in capsys.readouterr().err


def test_without_a_warehouse_the_page_of_before_is_shown_until_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    page()
    assert not docs.is_served()
    shown = subprocess.Popen(
        [sys.executable, "-m", "include.docs"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job, and what it starts, ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not docs.is_served():
            assert shown.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert httpx.get(docs.url()).text == "lineage"
        assert docs.main([]) == 0, "a second one only says where it is"
        assert docs.url() in capsys.readouterr().out
    finally:
        shown.send_signal(signal.SIGINT)
        out, _ = shown.communicate(timeout=30)
    assert shown.returncode == 0
    assert "the warehouse is down" in out
    assert f"{docs.url()} until Ctrl-C" in out


def test_a_port_of_somebody_else_is_not_taken_for_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "ANSWER_SECONDS", 0.2)
    page()
    with socket.create_server(("127.0.0.1", settings().docs_port)):
        # It takes the connection and never answers.
        assert docs.main([]) == 1
    assert "set EMPORIUM_DOCS_PORT" in capsys.readouterr().err


def test_the_page_of_another_home_is_not_taken_for_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page()
    other = tmp_path / "other"
    other.mkdir()
    (other / "fingerprint").write_text("another")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(other))
    with http.server.ThreadingHTTPServer(("127.0.0.1", settings().docs_port), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            assert docs.main([]) == 1
        finally:
            server.shutdown()
    assert "set EMPORIUM_DOCS_PORT" in capsys.readouterr().err
