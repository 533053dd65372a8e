"""A whole Emporium in a home of its own: Postgres, MLflow and Airflow, driven as a person would."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.conftest import free_port

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Stack:
    """A home and the command line that drives it."""

    home: Path
    env: dict[str, str]

    def emporium(self, *arguments: str, check: bool = True, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
        """Run ``./emporium``; what it prints is shown when it fails."""
        done = subprocess.run(
            [str(ROOT / "emporium"), *arguments], env=self.env, text=True, capture_output=True, timeout=timeout
        )
        print(f"$ ./emporium {' '.join(arguments)} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        if check:
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    def query(self, statement: str, role: str = "bi_reader") -> list[tuple]:
        """Rows of a query as a role; ``owner`` is the role without a name."""
        arguments = [] if role == "owner" else ["--role", role]
        url = self.emporium("dsn", *arguments).stdout.strip()
        with psycopg.connect(url) as conn:
            return conn.execute(statement).fetchall()

    def processes(self) -> list[str]:
        """Command lines of every process that belongs to this home."""
        mine = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                belongs = process.environ().get("EMPORIUM_HOME") == str(self.home) or str(self.home) in line
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if belongs and process.pid != os.getpid():
                mine.append(line)
        return mine


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    jars = os.environ.get("EMPORIUM_JARS") or str(ROOT / ".emporium" / "jars")
    home = Path(tempfile.mkdtemp(prefix="emporium-e2e-"))
    home.chmod(0o755)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("EMPORIUM_", "AIRFLOW"))}
    env |= {
        "EMPORIUM_HOME": str(home),
        "EMPORIUM_JARS": jars,
        "EMPORIUM_PG_PORT": str(free_port()),
        "EMPORIUM_AIRFLOW_PORT": str(free_port()),
        "EMPORIUM_MLFLOW_PORT": str(free_port()),
        "EMPORIUM_DOCS_PORT": str(free_port()),
        "COLUMNS": "160",
    }
    made = Stack(home, env)
    try:
        yield made
    finally:
        subprocess.run([str(ROOT / "emporium"), "down"], env=env, timeout=120, check=False)
        for process in psutil.process_iter():
            try:
                if process.environ().get("EMPORIUM_HOME") == str(home) and process.pid != os.getpid():
                    process.send_signal(signal.SIGKILL)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        if not os.environ.get("EMPORIUM_KEEP_E2E"):
            shutil.rmtree(home, ignore_errors=True)
