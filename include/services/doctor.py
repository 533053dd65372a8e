"""Preflight: everything that would stop a start half-way, each as one sentence that says what to do."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from include.services import postgres, processes
from include.settings import settings

PYTHONS = ((3, 11), (3, 12))
MIN_JAVA = 17
MIN_FREE_BYTES = 3 * 1024**3


def check() -> list[str]:
    """Every problem found, each one sentence; empty when a start can go ahead. Changes nothing but makes the home."""
    checks: tuple[Callable[[], list[str]], ...] = (_python, _java, _home, _disk, _ports)
    return [problem for run in checks for problem in run()]


def java() -> Path | None:
    """The ``java`` that Spark will use: ``JAVA_HOME``'s, else the first on the PATH; None when there is none."""
    if home := os.environ.get("JAVA_HOME"):
        candidate = Path(home) / "bin" / "java"
        if os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which("java")
    return Path(found) if found else None


def java_version(text: str) -> int | None:
    """The major version in what ``java -version`` prints: ``"17.0.15"`` -> 17, ``"1.8.0_402"`` -> 8."""
    match = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if match is None:
        return None
    major = int(match[1])
    return int(match[2]) if major == 1 and match[2] else major


def _python() -> list[str]:
    if sys.version_info[:2] in PYTHONS:
        return []
    return [
        f"Python {sys.version_info[0]}.{sys.version_info[1]} cannot run Emporium: install Python 3.11 or 3.12 and run "
        "`make setup PYTHON=python3.12`."
    ]


def _java() -> list[str]:
    found = java()
    if found is None:
        return [
            "Java is not installed: install a Java 17 runtime (Debian: apt-get install openjdk-17-jre-headless), "
            "or point JAVA_HOME at one."
        ]
    try:
        done = subprocess.run([str(found), "-version"], capture_output=True, text=True, timeout=30)
        version = java_version(done.stderr + done.stdout)
    except (OSError, subprocess.TimeoutExpired):
        version = None
    if version is None:
        return [f"{found} does not say its version: point JAVA_HOME at a working Java 17 runtime."]
    if version < MIN_JAVA:
        return [f"{found} is Java {version}, Spark needs {MIN_JAVA} or newer: install one, or point JAVA_HOME at it."]
    return []


def _home() -> list[str]:
    home = settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return [
            f"{home} cannot be written ({error.strerror}): fix its permissions, or set EMPORIUM_HOME to another folder."
        ]
    return []


def _disk() -> list[str]:
    home = settings().home
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free >= MIN_FREE_BYTES:
        return []
    return [
        f"Only {free / 1024**3:.1f} GB are free at {existing}, {MIN_FREE_BYTES / 1024**3:.0f} are needed: "
        "free some, or set EMPORIUM_HOME to a folder on a larger disk."
    ]


def _ports() -> list[str]:
    cfg = settings()
    wanted = [("docs server", "EMPORIUM_DOCS_PORT", cfg.docs_port)]
    if cfg.dsn is None:
        wanted.append(("Postgres", "EMPORIUM_PG_PORT", cfg.pg_port))
    if cfg.airflow_url is None:
        wanted.append(("Airflow", "EMPORIUM_AIRFLOW_PORT", cfg.airflow_port))
    if cfg.mlflow_url is None:
        wanted.append(("MLflow", "EMPORIUM_MLFLOW_PORT", cfg.mlflow_port))
    problems = []
    for name, variable, port in wanted:
        if sum(port == other for _, _, other in wanted) > 1:
            problems.append(f"{variable}={port} is given to more than one service: choose another port for {name}.")
        elif not _is_free(port) and not _is_ours(port):
            problems.append(
                f"Port {port} for {name} is taken{_holder(port)}: stop that program, or set {variable} to a free port."
            )
    return problems


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings().host, port))
        except OSError:
            return False
    return True


def _is_ours(port: int) -> bool:
    """Whether a process of this home holds the port: a running one, or a leftover that a start will end."""
    candidates = processes.ours()
    if pid := postgres.pid():
        candidates += processes.tree(pid)[:1]
    return any(processes.listens(process, port) for process in candidates)


def _holder(port: int) -> str:
    """`` by nginx (process 812)`` where the system tells."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return ""
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        ):
            try:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
            except psutil.Error:
                return f" by process {connection.pid}"
    return ""
