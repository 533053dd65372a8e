"""Ten million orders from MariaDB, whole, then a day of 1% more: ``python -m benchmarks.relational --rows 10000000``.

Starts a MariaDB of its own (Debian's `mariadb-server-core`) and a home of its own, fills an OpenCart-like order table
over 120 days without an index on its date, and measures land, gate and load as the commands that a night runs:

- ``full_s``         all days, from nothing
- ``incremental_s``  one more day that has 1% of the rows
- ``ratio``          incremental / full; the bound is 1/20
- ``floor_s``        the driver reading the same rows and columns as text, and nothing else
- ``peak_rss_mb``    the most that one of the commands weighed; neither this nor ``*_cpu_s`` has the databases in it
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import pymysql

from benchmarks.ingest import Ran
from benchmarks.ingest import run as run_command
from include.settings import ROOT, settings

FIRST, N_DAYS = date(2024, 1, 1), 120
COLUMNS = (
    "order_id",
    "customer_id",
    "email",
    "total",
    "order_status_id",
    "currency_code",
    "currency_value",
    "date_added",
)
YAML = """
source: bench_shop
type: sql
marketplace: bench_shop
currency: EUR
connection: {dsn_secret: bench_shop}
entities:
  oc_order:
    read: {table: oc_order}
    key: [order_id]
    cursor: date_added
    columns:
      order_id: {type: integer, required: true}
      customer_id: {type: integer}
      email: {pseudonym: email, required: true, severity: warning}
      total: {type: "numeric(18,4)", required: true, min: 0}
      order_status_id: {type: integer, required: true}
      currency_code: {required: true, pattern: "^[A-Z]{3}$"}
      currency_value: {required: true}
      date_added: {type: timestamptz, required: true}
"""
STEPS = ("land", "gate", "load")
STEP = (sys.executable, "-m", "benchmarks.relational", "--step")


def step(name: str, folder: Path, arguments: list[str]) -> int:
    """A command of the night, which sees the benchmark's YAML instead of the project's sources."""
    from include.ingest import sources

    sources.FOLDER = folder
    # Each step imports what its own command would, and no more.
    if name == "gate":
        from expectations import raw

        return raw.main(arguments)
    from include.ingest.__main__ import main as ingest

    return ingest([name, *arguments])


def fill(connection: pymysql.Connection, first: int, n: int, day: date, n_days: int) -> None:
    """``n`` orders from id ``first`` on, evenly over the days."""
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into oc_order select seq, seq % 500000, concat('person', seq % 500000, '@example.org'), "
            "(seq * 7919 % 20000) / 100, 1 + seq % 5, elt(1 + seq % 3, 'EUR', 'USD', 'JPY'), "
            "elt(1 + seq % 3, 1, 1.08561234, 163.25), repeat('something else of an order ', 4), "
            f"'{day}' + interval floor((seq - {first}) * {n_days * 86400} / {n}) second "
            f"from seq_{first}_to_{first + n - 1}"
        )
        cursor.execute("commit")


def floor(connection: pymysql.Connection) -> float:
    """Seconds in which the driver reads all rows as the connector selects them, piece by piece."""
    started = time.monotonic()
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute(f"select {', '.join(f'cast({one} as char)' for one in COLUMNS)} from oc_order")
        while cursor.fetchmany(50_000):
            pass
    return time.monotonic() - started


def run(folder: Path, first: date, last: date) -> dict[str, Ran]:
    """Land, gate and load of the days."""
    days = ["--source", "bench_shop", "--from", str(first), "--as-of", str(last)]
    return {name: run_command("benchmarks.relational", "--step", name, str(folder), *days) for name in STEPS}


def measure(rows: int, folder: Path) -> dict[str, float]:
    """Fill, load whole, load the day after; figures as the module says."""
    from include.services import postgres
    from include.warehouse.migrate import migrate
    from tests.integration.mariadb import server

    (folder / "bench_shop.yaml").write_text(YAML)
    with server() as shop:
        os.environ["EMPORIUM_SECRET_BENCH_SHOP"] = shop.dsn("bench")
        shop.run(None, "create database bench")
        with shop.connect("bench") as connection:
            connection.cursor().execute(
                "create table oc_order (order_id int primary key, customer_id int, email varchar(96), "
                "total decimal(15,4), order_status_id int, currency_code varchar(3), currency_value decimal(15,8), "
                "comment text, date_added datetime not null)"
            )
            # The sequence is cut so that no transaction holds all rows.
            per_day = rows // N_DAYS
            for at in range(0, N_DAYS, 10):
                fill(connection, at * per_day + 1, per_day * 10, FIRST + timedelta(days=at), 10)
            last = FIRST + timedelta(days=N_DAYS - 1)
            postgres.start()
            try:
                migrate()
                subprocess.run([*STEP, "prepare", str(folder)], cwd=ROOT, check=True, stdout=sys.stderr)
                floor_s = floor(connection)
                whole = run(folder, FIRST, last)
                fill(connection, per_day * N_DAYS + 1, rows // 100, last + timedelta(days=1), 1)
                more = run(folder, last + timedelta(days=1), last + timedelta(days=1))
                _check(per_day * N_DAYS + rows // 100)
            finally:
                postgres.stop()
    full_s = sum(one.wall for one in whole.values())
    incremental_s = sum(one.wall for one in more.values())
    parts = {"full": whole, "incremental": more}
    return {
        "rows": per_day * N_DAYS,
        "full_s": round(full_s, 1),
        "incremental_s": round(incremental_s, 1),
        "ratio": round(incremental_s / full_s, 4),
        "floor_s": round(floor_s, 1),
        "peak_rss_mb": round(max(one.peak_mb for part in parts.values() for one in part.values())),
        **{f"{part}_{name}_s": round(one.wall, 1) for part, of in parts.items() for name, one in of.items()},
        **{f"{part}_{name}_cpu_s": round(one.cpu, 1) for part, of in parts.items() for name, one in of.items()},
    }


def _check(rows: int) -> None:
    from include.warehouse.engine import connect

    with connect() as conn:
        found = conn.execute("select count(*) from raw_bench_shop.oc_order").fetchone()
    if not found or found[0] != rows:
        raise SystemExit(f"{found} rows are in raw, {rows} are in the shop")


def main() -> None:
    """Measure and print the figures, one a line or as JSON; exit 1 when the day takes more than 1/20 of the whole."""
    if sys.argv[1:2] == ["--step"]:
        sys.exit(step(sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="emporium-relational-"))
    home.chmod(0o755)
    from tests.integration.conftest import free_port

    os.environ |= {"EMPORIUM_HOME": str(home), "EMPORIUM_PG_PORT": str(free_port())}
    os.environ.pop("EMPORIUM_DSN", None)
    settings.cache_clear()
    (home / "sources").mkdir()
    try:
        found = measure(args.rows, home / "sources")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(found["ratio"] > 1 / 20)


if __name__ == "__main__":
    main()
