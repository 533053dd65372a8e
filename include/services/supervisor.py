"""Start, watch and stop everything a home runs: Postgres, MLflow, Airflow, the docs server.

``supervisord`` (a daemon in a session of its own) restarts what dies. See docs/decisions/0002-supervision.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.client
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from supervisor.xmlrpc import SupervisorTransport

from include.secrets import secret
from include.services import doctor, postgres, processes
from include.services.environment import airflow_home, environment, write_passwords
from include.settings import settings
from include.warehouse.engine import connect
from include.warehouse.migrate import migrate

Progress = Callable[[str], None]

HEALTHY_SECONDS = 180
"""How long a start may take until everything is healthy, on a slow machine with a cold disk."""

STOP_SECONDS = 15
SOCKET_PATH_LIMIT = 90
"""A Unix socket's path holds 104-108 bytes and supervisord makes it under a longer name first."""


@dataclass(frozen=True)
class Program:
    """One supervised process. ``priority`` orders the stop: the highest stops first."""

    name: str
    command: list[str]
    url: str | None = None
    priority: int = 100
    user: str | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 8
    is_group: bool = True


def programs() -> list[Program]:
    """What this home runs, by its settings: nothing that an address elsewhere replaces."""
    cfg = settings()
    bin_dir = Path(sys.executable).parent
    airflow, python = str(bin_dir / "airflow"), sys.executable
    listed = []
    if cfg.dsn is None:
        user = postgres.system_user()
        listed.append(
            Program(
                "postgres",
                postgres.command(),
                url=f"postgresql://{cfg.host}:{cfg.pg_port}",
                priority=1,
                user=user.pw_name if user else None,
                stop_signal="INT",  # fast: ends sessions, keeps the data clean
                stop_seconds=30,
                is_group=False,
            )
        )
    if cfg.mlflow_url is None:
        listed.append(Program("mlflow", [python, "-m", "include.services.mlflow_server"], url=cfg.mlflow_base_url))
    if cfg.airflow_url is None:
        listed += [
            # Stopped after the others, so that running tasks can still report that they were stopped.
            Program("airflow-api", [airflow, "api-server"], url=cfg.airflow_base_url, priority=50, stop_seconds=4),
            Program("airflow-scheduler", [airflow, "scheduler", "--skip-serve-logs"]),
            Program("airflow-dag-processor", [airflow, "dag-processor"]),
            Program("airflow-triggerer", [airflow, "triggerer", "--skip-serve-logs"]),
        ]
    docs = [
        python, "-m", "http.server", str(cfg.docs_port), "--bind", cfg.host, "--directory", str(cfg.home / "docs"),
    ]  # fmt: skip
    listed.append(Program("docs", docs, url=f"http://{cfg.host}:{cfg.docs_port}", stop_seconds=3))
    return listed


def config() -> str:
    """The text of supervisord's configuration. It holds no secret: those are inherited from its environment."""
    logs = settings().logs_dir
    lines = [
        "[unix_http_server]",
        f"file = {_value(_socket())}",
        "chmod = 0700",
        "",
        "[supervisord]",
        f"logfile = {_value(logs / 'supervisord.log')}",
        "logfile_maxbytes = 10MB",
        "logfile_backups = 2",
        f"pidfile = {_value(_folder() / 'supervisord.pid')}",
        f"directory = {_value(_folder())}",
        f"childlogdir = {_value(logs)}",
        "umask = 022",
        *(["user = root"] if os.geteuid() == 0 else []),
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        "",
        "[supervisorctl]",
        f"serverurl = unix://{_value(_socket())}",
    ]
    for program in programs():
        lines += [
            "",
            f"[program:{program.name}]",
            f"command = {_value(shlex.join(program.command))}",
            "directory = /",
            "autostart = false",
            "autorestart = true",
            # A process that dies within startsecs is tried again after 1, 2, 3, ... seconds.
            "startsecs = 5",
            "startretries = 20",
            f"priority = {program.priority}",
            f"stopsignal = {program.stop_signal}",
            f"stopwaitsecs = {program.stop_seconds}",
            f"stopasgroup = {str(program.is_group).lower()}",
            f"killasgroup = {str(program.is_group).lower()}",
            "redirect_stderr = true",
            f"stdout_logfile = {_value(logs / (program.name + '.log'))}",
            "stdout_logfile_maxbytes = 10MB",
            "stdout_logfile_backups = 3",
            *([f"user = {program.user}"] if program.user else []),
        ]
    return "\n".join(lines) + "\n"


def up(progress: Progress | None = None) -> None:
    """Bring everything up and return when it is healthy; quick when it is up already. Idempotent.

    Services that run with other settings than now given are restarted with these.

    Raises ``RuntimeError`` with sentences that say what to do when a precondition fails or a service does
    not become healthy (then with the end of its log). What was started stays up for a second try.
    """
    say = progress or (lambda _: None)
    _raise(doctor.check())
    with _lock():
        _prepare_folders()
        env = environment()
        fingerprint = _fingerprint(env)
        if _is_running() and _read(_folder() / "fingerprint") != fingerprint:
            say("settings changed: restarting the services")
            _stop_everything()
        if not _is_running():
            if n := _stop_everything():
                say(f"ended {n} processes left over from an earlier start")
            _start_supervisord(env)
            (_folder() / "fingerprint").write_text(fingerprint)
        else:
            _end_strays(say)
        rest = _start_database(say)
        _migrate_and_start(env, rest, say)
        _wait_healthy(say)


def down() -> int:
    """Stop everything and leave no process, also when supervisord itself was killed.

    Returns how many processes had to be ended besides the services themselves.
    """
    _folder().mkdir(parents=True, exist_ok=True)
    with _lock():
        return _stop_everything()


def status() -> dict[str, dict[str, Any]]:
    """Per service: state (RUNNING, STARTING, BACKOFF, STOPPED, FATAL, ...), is_healthy where it is known from
    outside, pid, url, uptime_s, and memory of its process tree (rss_mb, pss_mb; see ``processes.memory_mb``)."""
    known = _states()
    health = {"mlflow": _mlflow_is_healthy, "postgres": _postgres_is_healthy}
    airflow = (
        _airflow_health() if known and settings().airflow_url is None else dict.fromkeys(AIRFLOW_COMPONENTS, False)
    )
    found = {}
    for program in programs():
        info = known.get(program.name, {})
        pid = info.get("pid") or None
        if program.name == "postgres" and pid is None:
            pid = postgres.pid()
        state = info.get("statename", "RUNNING" if pid else "STOPPED")
        rss, pss = processes.memory_mb(processes.tree(pid)) if pid else (0.0, None)
        is_healthy: bool | None = None
        if pid is None:
            is_healthy = False
        elif program.name in health:
            is_healthy = health[program.name]()
        elif program.name in AIRFLOW_COMPONENTS:
            is_healthy = airflow[program.name]
        found[program.name] = {
            "state": state,
            "is_healthy": is_healthy,
            "pid": pid,
            "url": program.url,
            "uptime_s": _uptime(pid),
            "rss_mb": rss,
            "pss_mb": pss,
        }
    return found


AIRFLOW_COMPONENTS = {
    "airflow-api": "metadatabase",
    "airflow-scheduler": "scheduler",
    "airflow-dag-processor": "dag_processor",
    "airflow-triggerer": "triggerer",
}
"""Our names and those of Airflow's health report."""


# ---- supervisord ---------------------------------------------------------------------------------------------


def _rpc() -> Any:
    return xmlrpc.client.ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport("", "", f"unix://{_socket()}")
    ).supervisor


_RPC_ERRORS = (OSError, http.client.HTTPException, xmlrpc.client.Error)


def _is_running() -> bool:
    try:
        return _rpc().getState()["statename"] == "RUNNING"
    except _RPC_ERRORS:
        return False


def _states() -> dict[str, dict[str, Any]]:
    try:
        return {info["name"]: info for info in _rpc().getAllProcessInfo()}
    except _RPC_ERRORS:
        return {}


def _start_supervisord(env: dict[str, str]) -> None:
    path = _folder() / "supervisord.conf"
    path.touch(mode=0o600)
    path.write_text(config())
    _make_socket_folder()
    _socket().unlink(missing_ok=True)
    # It becomes a daemon in a session of its own: neither the shell's end nor Ctrl-C reaches it.
    done = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)],
        env=env,
        cwd="/",
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    if done.returncode:
        raise RuntimeError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")
    deadline = time.monotonic() + 15
    while not _is_running():
        if time.monotonic() > deadline:
            raise RuntimeError(f"supervisord does not answer: see {settings().logs_dir / 'supervisord.log'}.")
        time.sleep(0.05)


def _start(names: list[str]) -> None:
    rpc = _rpc()
    states = _states()
    for name in names:
        if states.get(name, {}).get("statename") in ("RUNNING", "STARTING"):
            continue
        with contextlib.suppress(xmlrpc.client.Fault):  # already being started after a crash
            rpc.startProcess(name, False)


def _stop_everything() -> int:
    """Stop the services by priority, then supervisord, then whatever is left; returns the count of the last."""
    if _is_running():
        with contextlib.suppress(*_RPC_ERRORS):
            for priority in sorted({program.priority for program in programs()}, reverse=True):
                _stop([program.name for program in programs() if program.priority == priority])
            supervisord = _rpc().getPID()
            _rpc().shutdown()
            with contextlib.suppress(psutil.Error):
                psutil.Process(supervisord).wait(STOP_SECONDS)
    ended = processes.end_ours()
    if settings().dsn is None:
        postgres.stop()
    for name in ("supervisord.pid", "fingerprint"):
        (_folder() / name).unlink(missing_ok=True)
    _socket().unlink(missing_ok=True)
    if _socket().parent != _folder():
        with contextlib.suppress(FileNotFoundError):
            _socket().parent.rmdir()
    return ended


def _stop(names: list[str]) -> None:
    rpc = _rpc()
    for name in names:
        with contextlib.suppress(xmlrpc.client.Fault):  # not running
            rpc.stopProcess(name, False)
    deadline = time.monotonic() + STOP_SECONDS + 20
    while any(_states().get(name, {}).get("statename") in ("RUNNING", "STARTING", "STOPPING") for name in names):
        if time.monotonic() > deadline:
            return  # the sweep that follows ends them
        time.sleep(0.1)


def _end_strays(say: Progress) -> None:
    """End what a killed service left behind, such as the workers of a scheduler that got SIGKILL.

    A task that runs on under such a worker is left to finish: it reports to the API server by itself.
    """
    supervisord = _rpc().getPID()
    kept = {process.pid for process in processes.tree(supervisord)}
    strays = [process for process in processes.ours() if process.pid not in kept and not _is_busy(process)]
    if strays:
        processes.end(strays)
        say(f"ended {len(strays)} processes that a killed service left behind")


def _is_busy(process: psutil.Process) -> bool:
    try:
        return bool(process.children()) or "LocalExecutor: <idle>" not in " ".join(process.cmdline())
    except psutil.Error:
        return False


# ---- the steps of a start ------------------------------------------------------------------------------------


def _prepare_folders() -> None:
    cfg = settings()
    for folder in (_folder(), cfg.logs_dir, cfg.home / "docs", cfg.home / "mlflow" / "artifacts", airflow_home()):
        folder.mkdir(parents=True, exist_ok=True)
    (cfg.home / "run").mkdir(mode=0o700, exist_ok=True)
    for name in ("pg_owner", "pg_airflow", "pg_mlflow", "airflow_fernet", "airflow_api", "airflow_jwt"):
        secret(name)
    write_passwords()


def _start_database(say: Progress) -> list[str]:
    """Bring Postgres up; returns the names of the other programs."""
    names = [program.name for program in programs()]
    if "postgres" in names:
        began = time.monotonic()
        is_new = postgres.initialise()
        if _states().get("postgres", {}).get("statename") not in ("RUNNING", "STARTING"):
            postgres.stop()  # one that `postgres.start()` began would hold the port
            _start(["postgres"])
        try:
            postgres.wait()
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{_log_tail('postgres')}") from error
        postgres.ensure_database()
        say(f"Postgres {'made and ' if is_new else ''}up on port {settings().pg_port} ({_since(began)})")
    return [name for name in names if name != "postgres"]


def _migrate_and_start(env: dict[str, str], names: list[str], say: Progress) -> None:
    """Bring the schemas to head and start the other programs; MLflow's server migrates its own meanwhile."""
    began = time.monotonic()
    revision = migrate()
    say(f"warehouse at revision {revision} ({_since(began)})")
    airflow = [name for name in names if name.startswith("airflow-")]
    _start([name for name in names if name not in airflow])
    if airflow:
        _migrate_airflow(env, say)
        _start(airflow)


def _migrate_airflow(env: dict[str, str], say: Progress) -> None:
    """``airflow db migrate``, unless the database is where the installed version left it: starting Airflow only
    to hear that costs seconds."""
    version = importlib.metadata.version("apache-airflow-core")
    marker = _folder() / "airflow.migrated"
    revision = _airflow_revision()
    if revision is not None and _read(marker) == f"{version} {revision}":
        return
    began = time.monotonic()
    log = settings().logs_dir / "airflow-migrate.log"
    command = [str(Path(sys.executable).parent / "airflow"), "db", "migrate"]
    with open(log, "w") as handle:
        done = subprocess.run(command, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=handle, stderr=handle)
    if done.returncode:
        raise RuntimeError(f"Airflow's database was not migrated; {log} ends:\n{_tail(log)}")
    marker.write_text(f"{version} {_airflow_revision()}")
    say(f"Airflow's database at version {version} ({_since(began)})")


def _airflow_revision() -> str | None:
    """The Alembic revision of Airflow's database; None when it has none yet."""
    with connect("airflow", database="airflow") as conn:
        try:
            row = conn.execute("select version_num from alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            return None
        return row[0] if row else None


def _wait_healthy(say: Progress) -> None:
    cfg = settings()
    waiting: dict[str, Callable[[], bool]] = {}
    if cfg.mlflow_url is None:
        waiting["mlflow"] = _mlflow_is_healthy
    if cfg.airflow_url is None:
        waiting["airflow"] = lambda: all(_airflow_health().values())
    began = time.monotonic()
    while waiting:
        for name in [name for name, is_healthy in waiting.items() if is_healthy()]:
            del waiting[name]
            say(f"{'MLflow' if name == 'mlflow' else 'Airflow'} is healthy ({_since(began)})")
        if not waiting:
            return
        failed = [name for name, info in _states().items() if info["statename"] == "FATAL"]
        if failed or time.monotonic() - began > HEALTHY_SECONDS:
            suspects = failed or [p.name for p in programs() if any(p.name.startswith(name) for name in waiting)]
            raise RuntimeError(
                f"Not healthy after {_since(began)}: {', '.join(suspects)}.\n" + "\n".join(map(_log_tail, suspects))
            )
        time.sleep(0.3)


# ---- health --------------------------------------------------------------------------------------------------


@functools.cache
def _client() -> httpx.Client:
    # Making one costs a hundredth of a second of CPU (certificates), which a poll would pay each time.
    return httpx.Client(timeout=5, trust_env=False, verify=False)  # noqa: S501 our own loopback, no TLS


def _get(url: str) -> httpx.Response | None:
    try:
        return _client().get(url)
    except httpx.HTTPError:
        return None


def _airflow_health() -> dict[str, bool]:
    """Program name -> whether Airflow calls it healthy on the word of the process that runs now.

    Airflow believes a heartbeat for 30 seconds, so the one of a process before this one would pass for its own.
    """
    answer = _get(f"{settings().airflow_base_url}/api/v2/monitor/health")
    report = answer.json() if answer is not None and answer.status_code == 200 else {}
    states = _states()
    health = {}
    for name, part in AIRFLOW_COMPONENTS.items():
        said = report.get(part) or {}
        beat = said.get(f"latest_{part}_heartbeat")
        begun = states.get(name, {}).get("start", 0) if states else 0
        is_fresh = name == "airflow-api" or (beat is not None and datetime.fromisoformat(beat).timestamp() >= begun)
        health[name] = said.get("status") == "healthy" and is_fresh
    return health


def _mlflow_is_healthy() -> bool:
    answer = _get(f"{settings().mlflow_base_url}/health")
    return answer is not None and answer.status_code == 200


def _postgres_is_healthy() -> bool:
    try:
        connect(autocommit=True, connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


# ---- small things --------------------------------------------------------------------------------------------


def _folder() -> Path:
    return settings().home / "supervisor"


def _socket() -> Path:
    """The control socket: in the home, or in a short private folder where the home's path is too long.

    ``_make_socket_folder`` makes the folder, the end of the services removes it. ``RuntimeError`` where it is not ours.
    """
    inside = _folder() / "supervisor.sock"
    if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
        return inside
    digest = hashlib.sha256(os.fsencode(settings().home)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"emporium-{os.geteuid()}-{digest}"
    with contextlib.suppress(FileNotFoundError):
        stat = folder.lstat()
        if folder.is_symlink() or stat.st_uid != os.geteuid() or stat.st_mode & 0o077:
            raise RuntimeError(f"{folder} belongs to someone else: remove it, or set EMPORIUM_HOME to a shorter path.")
    return folder / "supervisor.sock"


def _make_socket_folder() -> None:
    """Make the folder of the control socket; ``RuntimeError`` where it is someone else's."""
    _socket().parent.mkdir(mode=0o700, exist_ok=True)
    # Who made it is looked at again: it may have been another one, in between.
    _socket()


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Two starts or stops of one home take turns."""
    _folder().mkdir(parents=True, exist_ok=True)
    with open(_folder() / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fingerprint(env: dict[str, str]) -> str:
    """What the services depend on: a change of it restarts them. A digest, for it covers secrets."""
    relevant = {k: v for k, v in env.items() if k.startswith(("EMPORIUM_", "AIRFLOW", "MLFLOW_", "SPARK_", "AWS_"))}
    return hashlib.sha256((config() + json.dumps(relevant, sort_keys=True)).encode()).hexdigest()


def _value(value: object) -> str:
    """A value for supervisord's configuration, where a percent sign begins an expansion."""
    return str(value).replace("%", "%%")


def _raise(problems: list[str]) -> None:
    if problems:
        raise RuntimeError("\n".join(problems))


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def _log_tail(name: str) -> str:
    path = settings().logs_dir / f"{name}.log"
    return f"--- {path} ends:\n{_tail(path)}"


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def _uptime(pid: int | None) -> float | None:
    try:
        return round(time.time() - psutil.Process(pid).create_time(), 1) if pid else None
    except psutil.Error:
        return None
