"""How the conformance suite puts its rows where Emporium's own connectors read them: real servers and folders.

They run in the suite's process; the servers' addresses come by the environment.
"""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path

import psycopg
import pymysql
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from include.conformance import COLUMNS, Harness, described
from include.warehouse.engine import owner_dsn
from tests.integration.conftest import free_port
from tests.integration.marketplace_server import TOKEN, Api, number, serving

PASSWORD = "pw-of-the-shops-reader"
numbers = count(1)


@contextmanager
def secret(name: str, value: str) -> Iterator[str]:
    """A secret that is there as long as the block lasts; yields its name."""
    variable = f"EMPORIUM_SECRET_{name.upper()}"
    os.environ[variable] = value
    try:
        yield name
    finally:
        del os.environ[variable]


class Postgres(Harness):
    """A schema of our own Postgres, read by a role with a password."""

    secrets = (PASSWORD,)

    @contextmanager
    def serve(self, rows, page_size):
        schema = f"conformance_{next(numbers)}"
        kinds = {**COLUMNS, "surprise": "text", "updated_at": "timestamp"}
        with psycopg.connect(owner_dsn()) as conn:
            if not conn.execute("select 1 from pg_roles where rolname = 'conformance_reader'").fetchone():
                conn.execute(sql.SQL("create role conformance_reader login password {}").format(sql.Literal(PASSWORD)))
            conn.execute(f"create schema {schema}")
            conn.execute(f"grant usage on schema {schema} to conformance_reader")
            columns = ", ".join(f"{name} {kinds[name]}" for name in rows[0])
            conn.execute(f"create table {schema}.things ({columns}, primary key (id))")
            conn.execute(f"grant select on {schema}.things to conformance_reader")
            marks = ", ".join(["%s"] * len(rows[0]))
            conn.cursor().executemany(
                f"insert into {schema}.things values ({marks})", [[*self._stored(row).values()] for row in rows]
            )
        try:
            with secret("conformance_dsn", self._dsn(PASSWORD)):
                yield self._yaml(schema)
        finally:
            with psycopg.connect(owner_dsn()) as conn:
                conn.execute(f"drop schema {schema} cascade")

    @contextmanager
    def gone(self):
        with secret("conformance_dsn", f"postgresql://reader:{PASSWORD}@127.0.0.1:{free_port()}/shop"):
            yield self._yaml("shop")

    @contextmanager
    def refused(self):
        with secret("conformance_dsn", self._dsn(PASSWORD, role="nobody_knows_him")):
            yield self._yaml("shop")

    def _stored(self, row):
        # A moment in one column, a time without a zone in the other: shops have both.
        return {**row, "updated_at": row["updated_at"].astimezone(UTC).replace(tzinfo=None)}

    def _dsn(self, password: str, role: str = "conformance_reader") -> str:
        at = conninfo_to_dict(owner_dsn())
        return f"postgresql://{role}:{password}@{at['host']}:{at['port']}/{at['dbname']}"

    def _yaml(self, schema: str):
        connection = {"dsn_secret": "conformance_dsn", "schema_name": schema}
        return described("sql", connection, {"table": "things"})


class MariaDB(Harness):
    """A database of the server at EMPORIUM_TEST_MARIADB_PORT; times in the shop's own zone."""

    secrets = (PASSWORD,)
    TYPES = {
        "id": "bigint primary key", "label": "text not null", "note": "text", "amount": "decimal(18,4)",
        "is_paid": "tinyint(1)", "due_on": "date", "happened_at": "timestamp(6) null", "updated_at": "datetime(6)",
        "surprise": "text",
    }  # fmt: skip

    @contextmanager
    def serve(self, rows, page_size):
        database = f"conformance_{next(numbers)}"
        with self._root() as conn, conn.cursor() as cursor:
            cursor.execute(f"create user if not exists conformance@'%' identified by '{PASSWORD}'")
            cursor.execute(f"create database {database} character set utf8mb4")
            cursor.execute(f"grant select on {database}.* to conformance@'%'")
            cursor.execute(f"use {database}")
            cursor.execute("set time_zone = '+00:00'")
            columns = ", ".join(f"`{name}` {self.TYPES[name]}" for name in rows[0])
            cursor.execute(f"create table things ({columns}) engine=InnoDB")
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"insert into things values ({marks})", [[*map(_in_utc, row.values())] for row in rows])
        with secret("conformance_dsn", self._dsn(database)):
            yield self._yaml()
        with self._root() as conn, conn.cursor() as cursor:
            cursor.execute(f"drop database {database}")

    @contextmanager
    def gone(self):
        with secret("conformance_dsn", f"mysql+pymysql://reader:{PASSWORD}@127.0.0.1:{free_port()}/shop"):
            yield self._yaml()

    @contextmanager
    def refused(self):
        with secret("conformance_dsn", self._dsn("mysql", user="nobody_knows_him")):
            yield self._yaml()

    def _root(self) -> pymysql.Connection:
        port = int(os.environ["EMPORIUM_TEST_MARIADB_PORT"])
        return pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True, charset="utf8mb4")

    def _dsn(self, database: str, user: str = "conformance") -> str:
        return f"mysql+pymysql://{user}:{PASSWORD}@127.0.0.1:{os.environ['EMPORIUM_TEST_MARIADB_PORT']}/{database}"

    def _yaml(self):
        return described("sql", {"dsn_secret": "conformance_dsn"}, {"table": "things"})


def _in_utc(value):
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


class Csv(Harness):
    """A folder a day with a CSV file."""

    format = "csv"

    @contextmanager
    def serve(self, rows, page_size):
        with tempfile.TemporaryDirectory() as folder:
            for day in sorted({row["updated_at"].astimezone(UTC).date() for row in rows} | self._days()):
                of = [row for row in rows if row["updated_at"].astimezone(UTC).date() == day]
                path = Path(folder, day.isoformat(), f"things.{self.format}")
                path.parent.mkdir()
                with path.open("w", newline="", encoding="utf-8") as file:
                    self._write(file, list(rows[0]), of)
            yield self._yaml(folder)

    @contextmanager
    def gone(self):
        yield self._yaml("/nowhere/at/all")

    def _yaml(self, folder: str):
        return described("files", {"folder": f"{folder}/{{day}}", "format": self.format}, {"file": "things"})

    def _days(self) -> set[date]:
        """A day without rows has a file too: one that is missing is an error."""
        return {date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)}

    def _write(self, file, names, rows):
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
        writer.writerow(names)
        writer.writerows([[_text(value) for value in row.values()] for row in rows])


class Jsonl(Csv):
    """A folder a day with a file of JSON lines."""

    format = "jsonl"

    def _write(self, file, names, rows):
        for row in rows:
            file.write(json.dumps(_plain(row), ensure_ascii=False).replace('"#', "").replace('#"', "") + "\n")


def _text(value):
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else value


def _plain(row: Mapping):
    """A row as JSON has it: numbers with every digit, times and dates as ISO texts."""
    return {
        name: number(str(value)) if isinstance(value, Decimal) or type(value) is int else
        value.isoformat() if isinstance(value, date) else value
        for name, value in row.items()
    }  # fmt: skip


class Rest(Harness):
    """The API of ``marketplace_server``, a page after the other by a cursor."""

    secrets = (TOKEN,)

    @contextmanager
    def serve(self, rows, page_size):
        records = [
            {**_plain(row), "updated_at": f"{row['updated_at'].astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"} for row in rows
        ]
        with serving(Api({"/things": records}, size=page_size)) as server, secret("conformance_token", TOKEN):
            yield self._yaml(server.url)

    @contextmanager
    def gone(self):
        with secret("conformance_token", TOKEN):
            yield self._yaml(f"http://127.0.0.1:{free_port()}")

    @contextmanager
    def refused(self):
        # The server tells in its answer what it was given.
        with serving(Api({"/things": []}, auth="header")) as server, secret("conformance_token", TOKEN):
            yield self._yaml(server.url)

    def _yaml(self, url: str):
        connection = {
            "base_url": url,
            "auth": {"type": "bearer", "secret": "conformance_token"},
            "data": "data",
            "pagination": {"by": "cursor", "param": "cursor", "next": "meta.next_cursor"},
            "window": {"since": "updated_since", "until": "updated_until"},
            "retry": {"max_attempts": 2, "first_seconds": 0, "max_seconds": 0},
        }
        return described("rest", connection, {"path": "/things"})
