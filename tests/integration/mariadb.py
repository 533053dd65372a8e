"""A MariaDB of Debian's `mariadb-server-core`, on loopback, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from tests.integration.conftest import free_port

TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
"""What `mariadb-install-db` feeds to a server: it is of no use here, for it wants a tool of the client's package."""

SHARE = Path("/usr/share/mysql")
PASSWORD = "s3cret/of@the:reader"
"""Of the role that reads: with what a URL has to escape."""

ESCAPED = "s3cret%2Fof%40the%3Areader"


@dataclass(frozen=True)
class MariaDB:
    """A running server; everybody may connect from this machine as root."""

    port: int

    def connect(self, database: str | None = None, **more) -> pymysql.Connection:
        """As root, in autocommit."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", password="", database=database, autocommit=True,
            charset="utf8mb4", local_infile=True, **more,
        )  # fmt: skip

    def run(self, database: str | None, *statements: str) -> None:
        """Statements as root; a text with several is split at line ends after a semicolon."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for text in statements:
                for statement in text.split(";\n"):
                    if statement.strip(" \n;"):
                        cursor.execute(statement)

    def query(self, database: str, text: str) -> list[tuple]:
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())

    def dsn(self, database: str) -> str:
        """SQLAlchemy URL of a user who may only read."""
        return f"mysql+pymysql://reader:{ESCAPED}@127.0.0.1:{self.port}/{database}"


@contextmanager
def server() -> Iterator[MariaDB]:
    """Start one, as an unprivileged user where we are root, and stop it in the end."""
    binary = _binary()
    assert binary is not None, missing()
    folder = Path(tempfile.mkdtemp(prefix="emporium-mariadb-"))
    (folder / "data").mkdir()
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:
        # The server refuses to be root.
        nobody = pwd.getpwnam("nobody")
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (folder, folder / "data"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    process = None
    try:
        system = "create database mysql;\nuse mysql;\nset @auth_root_socket = null;\n"
        system += "".join((SHARE / name).read_text() for name in TABLES)
        made = subprocess.run(
            [binary, "--no-defaults", f"--datadir={folder}/data", "--bootstrap", f"--tmpdir={folder}",
             "--innodb-log-file-size=256M"],
            input=system, text=True, capture_output=True, cwd=folder, **as_user,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"MariaDB could not be set up: {made.stderr[-2000:]}")
        port = free_port()
        process = subprocess.Popen(
            [binary, "--no-defaults", f"--datadir={folder}/data", f"--socket={folder}/socket", f"--port={port}",
             f"--pid-file={folder}/pid", f"--tmpdir={folder}", "--bind-address=127.0.0.1", "--skip-log-bin",
             "--innodb-buffer-pool-size=256M", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0",
             "--local-infile=1", "--character-set-server=utf8mb4", "--secure-file-priv=",
             "--innodb-log-file-size=256M", "--sql-mode="],
            stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"), cwd=folder, **as_user,
        )  # fmt: skip
        found = MariaDB(port)
        deadline = time.monotonic() + 60
        while True:
            try:
                found.connect().close()
                break
            except pymysql.err.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"MariaDB did not start: {(folder / 'log').read_text()[-2000:]}") from None
                time.sleep(0.1)
        found.run(None, f"create user reader@'%' identified by '{PASSWORD}'", "grant select on *.* to reader@'%'")
        yield found
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _binary() -> str | None:
    return shutil.which("mariadbd", path=os.environ["PATH"] + ":/usr/sbin")


def missing() -> str | None:
    """Why there is no server here, or None."""
    if _binary() and all((SHARE / name).exists() for name in TABLES):
        return None
    return "MariaDB is not installed: apt-get install mariadb-server-core (as .ci/run does)"
