"""Preflight: one clear sentence for each thing that would stop a start."""

import shutil
import socket
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from include.services import doctor
from include.settings import settings


@pytest.fixture
def listener():
    """A port that this test, which is no service of any home, listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def fake_java(folder: Path, says: str) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("command not found", None),
    ],
)
def test_java_version_is_read_from_old_and_new_spellings(text, major):
    assert doctor.java_version(text) == major


def test_missing_java_is_one_sentence_that_says_what_to_install(home, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(home))
    (problem,) = doctor._java()
    assert "Java 17" in problem
    assert problem.endswith(".")


def test_java_home_wins_over_the_path_and_an_old_one_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", 'openjdk version "11.0.2"')))
    (problem,) = doctor._java()
    assert "Java 11" in problem
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "new", 'openjdk version "21.0.1"')))
    assert doctor._java() == []


def test_other_python_is_refused(home, monkeypatch):
    assert doctor._python() == []
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    (problem,) = doctor._python()
    assert "3.13" in problem


def test_a_taken_port_names_the_port_and_the_variable_that_moves_it(home, monkeypatch, listener):
    monkeypatch.setenv("EMPORIUM_AIRFLOW_PORT", str(listener))
    settings.cache_clear()
    (problem,) = [p for p in doctor._ports() if "Airflow" in p]
    assert str(listener) in problem
    assert "EMPORIUM_AIRFLOW_PORT" in problem


def test_a_port_that_one_of_our_processes_holds_is_fine(home, monkeypatch, listener):
    monkeypatch.setenv("EMPORIUM_MLFLOW_PORT", str(listener))
    settings.cache_clear()
    monkeypatch.setattr(doctor, "_is_ours", lambda port: port == listener)
    assert not [p for p in doctor._ports() if "MLflow" in p]


def test_ports_of_services_elsewhere_are_not_looked_at(home, monkeypatch, listener):
    monkeypatch.setenv("EMPORIUM_PG_PORT", str(listener))
    settings.cache_clear()
    assert [p for p in doctor._ports() if "Postgres" in p]
    monkeypatch.setenv("EMPORIUM_DSN", "postgresql://someone@elsewhere/db")
    settings.cache_clear()
    assert not [p for p in doctor._ports() if "Postgres" in p]


def test_one_port_for_two_services_is_refused(home, monkeypatch):
    monkeypatch.setenv("EMPORIUM_PG_PORT", "15999")
    monkeypatch.setenv("EMPORIUM_MLFLOW_PORT", "15999")
    settings.cache_clear()
    assert len([p for p in doctor._ports() if "more than one service" in p]) == 2


def test_a_full_disk_says_how_much_is_free(home, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 2 * 1024**3))
    (problem,) = doctor._disk()
    assert "2.0 GB" in problem
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 4 * 1024**3))
    assert doctor._disk() == []


def test_a_home_that_cannot_be_made_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path / "file" / "home"))
    settings.cache_clear()
    (problem,) = doctor._home()
    assert "EMPORIUM_HOME" in problem
    settings.cache_clear()


def test_check_collects_every_problem(home, monkeypatch, listener):
    monkeypatch.setenv("EMPORIUM_DOCS_PORT", str(listener))
    monkeypatch.setattr(doctor, "java", lambda: None)
    settings.cache_clear()
    problems = doctor.check()
    assert len([p for p in problems if "Java" in p or str(listener) in p]) == 2
