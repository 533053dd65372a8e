"""Starting, killing and healing, with the real Postgres and the real supervisord but small programs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from include.services import postgres, processes, supervisor
from include.services.environment import environment
from include.settings import settings
from include.warehouse.engine import connect
from tests.integration.conftest import free_port

pytestmark = pytest.mark.integration

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)",
]  # fmt: skip


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home beside the session's, with ports of its own; nothing of it is left running."""
    path = Path(tempfile.mkdtemp(prefix="emporium-svc-"))
    path.chmod(0o755)
    monkeypatch.delenv("EMPORIUM_DSN", raising=False)
    monkeypatch.setenv("EMPORIUM_HOME", str(path))
    for name in ("PG", "AIRFLOW", "MLFLOW", "DOCS"):
        monkeypatch.setenv(f"EMPORIUM_{name}_PORT", str(free_port()))
    settings.cache_clear()
    yield path
    stop(path)
    monkeypatch.undo()
    settings.cache_clear()
    shutil.rmtree(path, ignore_errors=True)


def stop(home: Path) -> int:
    """``down()``, but never while broken code takes other homes' processes for ours: it would end those."""
    marked = {}
    for process in processes.ours():
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end between the two looks
            marked[process.pid] = process.environ().get("EMPORIUM_HOME")
    assert set(marked.values()) <= {str(home)}, f"would end processes of other homes: {marked}"
    return supervisor.down()


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def supervise(monkeypatch: pytest.MonkeyPatch, *listed: supervisor.Program) -> None:
    monkeypatch.setattr(supervisor, "programs", lambda: list(listed))
    supervisor._prepare_folders()
    supervisor._start_supervisord(environment())
    supervisor._start([program.name for program in listed])
    assert eventually(lambda: all(info["pid"] for info in supervisor._states().values()))


def test_postgres_killed_with_its_rows_comes_back_with_them(home):
    postgres.start()
    with connect(autocommit=True) as conn:
        conn.execute("create table t as select 42 as n")
    os.kill(postgres.pid(), signal.SIGKILL)
    assert eventually(lambda: postgres.pid() is None)
    postgres.start()
    postgres.start()  # a running one is left alone
    with connect() as conn:
        assert conn.execute("select n from t").fetchone() == (42,)
    postgres.stop()
    assert postgres.pid() is None
    postgres.stop()  # and stopping a stopped one is fine


def test_the_first_reader_of_a_new_table_does_not_write_it_to_the_log(warehouse):
    with connect(autocommit=True) as conn:
        conn.execute(
            "create table public.unread as select n, md5(n::text) as text from generate_series(1, 100000) as n"
        )
        [before] = conn.execute("select pg_current_wal_insert_lsn()").fetchone()
        conn.execute("select count(*) from public.unread")
        [logged] = conn.execute("select pg_current_wal_insert_lsn() - %s", (before,)).fetchone()
        [size] = conn.execute("select pg_relation_size('public.unread')").fetchone()
        conn.execute("drop table public.unread")
        assert logged < size / 100
        # Text in the order of code points, compared byte by byte.
        [provider] = conn.execute(
            "select datlocprovider from pg_database where datname = current_database()"
        ).fetchone()
        assert provider == "b"
        assert conn.execute("select 'Z' < 'a', 'z' < 'é', 'demo_outlet' < 'demo_shop'").fetchone() == (True, True, True)


def test_postgres_on_another_homes_port_is_not_taken_for_ours(home, warehouse, monkeypatch):
    """``warehouse`` comes second, yet the settings stay those of ``home``."""
    monkeypatch.setenv("EMPORIUM_HOME", str(warehouse))
    settings.cache_clear()
    port = int((postgres.data_dir() / "postmaster.pid").read_text().splitlines()[3])
    monkeypatch.setenv("EMPORIUM_HOME", str(home))
    monkeypatch.setenv("EMPORIUM_PG_PORT", str(port))
    settings.cache_clear()
    with pytest.raises(RuntimeError, match="Another Postgres"):
        postgres.wait(5)


def test_supervised_postgres_heals_itself_after_kill_9(home, monkeypatch):
    program = next(program for program in supervisor.programs() if program.name == "postgres")
    postgres.initialise()
    supervise(monkeypatch, program)
    postgres.wait()
    postgres.ensure_database()
    before = postgres.pid()
    # No secret of ours is in the environment of the server or on a command line of the home.
    assert set(psutil.Process(before).environ()) <= set(postgres.ENVIRONMENT) | {"PGDATA"}
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: postgres.pid() not in (None, before))
    postgres.wait()
    with connect() as conn:
        assert conn.execute("select 1").fetchone() == (1,)
    assert supervisor.status()["postgres"]["is_healthy"]
    stop(home)
    assert postgres.pid() is None
    with pytest.raises(psycopg.OperationalError):
        connect(connect_timeout=2)


def test_a_killed_service_is_restarted(home, monkeypatch):
    supervise(monkeypatch, supervisor.Program("sleeper", SLEEPER))
    # One that dies while it is still starting is tried again whatever autorestart says.
    assert eventually(lambda: supervisor.status()["sleeper"]["state"] == "RUNNING")
    before = supervisor.status()["sleeper"]["pid"]
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: supervisor.status()["sleeper"]["pid"] not in (None, before))


def test_supervisord_is_a_session_of_its_own_and_its_files_are_private(home, monkeypatch):
    supervise(monkeypatch, supervisor.Program("sleeper", SLEEPER))
    supervisord = supervisor._rpc().getPID()
    assert os.getsid(supervisord) != os.getsid(0)
    assert (home / "supervisor" / "supervisord.conf").stat().st_mode & 0o077 == 0


def test_down_leaves_nothing_after_supervisord_itself_was_killed(home, monkeypatch):
    supervise(monkeypatch, supervisor.Program("sleeper", SLEEPER), supervisor.Program("stubborn", STUBBORN))
    pids = [service["pid"] for service in supervisor.status().values()]
    # Whoever has not said its word by then ends of a broken pipe.
    assert eventually(lambda: "ready" in (settings().logs_dir / "stubborn.log").read_text())
    supervisord = psutil.Process(supervisor._rpc().getPID())
    supervisord.kill()
    assert eventually(lambda: supervisord not in processes.ours())
    assert all(psutil.pid_exists(pid) for pid in pids)
    assert stop(home) == 2
    assert processes.ours() == []
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_only_this_homes_processes_are_ended(home):
    def spawn(command: list[str], **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, env=environment() | env, start_new_session=True, text=True, stdout=subprocess.PIPE
        )

    mine, stubborn = spawn(SLEEPER), spawn(STUBBORN)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()  # it ignores SIGTERM from here on
    others = [spawn(SLEEPER, EMPORIUM_HOME=f"{home}2"), spawn(SLEEPER, EMPORIUM_SUPERVISED="0")]
    try:
        # Compared before anything is ended: a broken filter must fail here and not end what others run.
        assert eventually(lambda: {process.pid for process in processes.ours()} == {mine.pid, stubborn.pid})
        assert processes.end_ours() == 2
        assert not any(psutil.pid_exists(process.pid) for process in (mine, stubborn))
        assert [other.poll() for other in others] == [None, None]
    finally:
        for process in (mine, stubborn, *others):
            process.kill()
            process.wait()
