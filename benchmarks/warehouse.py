"""The warehouse at 1, 3 and 10 million order items: ``python -m benchmarks.warehouse --rows 1000000 --json``.

Takes the demo's two shops in with the commands of a night, repeats their raw rows under other keys until there are that
many order items, holds the last day back, and measures:

- ``full_s``         ``dbt build`` of everything, tests included
- ``incremental_s``  the same command after the last day's rows were loaded; ``ratio`` is its share of ``full_s``
- ``floor_s``        the SQL of the same models by hand: ``create unlogged table as`` of what dbt compiled, one by one
- ``publish_s``      what merges the day into what BI reads
- ``dag_over_dbt``   with ``--dag``: Airflow's ``warehouse``, from trigger to the build's end, over the command
- ``key_p99_ms``, ``topn_p99_ms``  a row of ``bi.fact_order`` by key, the 20 largest items of a vendor, as ``bi_reader``
- ``is_equal``       with ``--check``: the tables after the day are those of a full refresh, by checksum

Everything happens in a home of its own with a Postgres of its own, which end with the command. ``--plans FOLDER`` keeps
the plans of the slowest five models.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.ingest import own_home
from include.ingest.sources import load_source
from include.ingest.tables import columns
from include.ingest.touched import Changes
from include.settings import ROOT

SOURCES = ("demo_shop", "demo_outlet")
CATALOGUES = 8
"""How many times the products and vendors are repeated, however many orders there are."""

STEP = 1_000_000
"""Between the copies of a product's or a vendor's number."""

SHIFTED = (
    "order_id", "order_product_id", "order_total_id", "order_history_id", "return_id", "invoice_no", "customer_id",
    "review_id", "coupon_history_id", "refund_id", "customer_transaction_id", "product_stock_log_id",
)  # fmt: skip
PEOPLE = ("email", "customer_email")
CATALOGUE = ("product_id", "vendor_id", "sku", "vendor_code")
N_LOOKUPS = 3000
TOP = 20


# --- rows --------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - STARTED:6.0f} s] {text}", file=sys.stderr, flush=True)


STARTED = time.monotonic()


def command(*line: str) -> float:
    """Run ``python -m ...``; its seconds. ``SystemExit`` with its last lines where it fails."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", *line], cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"python -m {' '.join(line)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    seconds = time.monotonic() - started
    say(f"{' '.join(line)}: {seconds:.1f} s")
    for text in done.stdout.splitlines()[-4:]:
        print(f"    {text}", file=sys.stderr)
    return seconds


def base() -> date:
    """The demo's shops in raw, as a night's commands bring them; the last day."""
    from include.demo import fill
    from include.ingest.plan import open_group

    fill()
    opened = open_group("demo", None)
    assert opened.first
    assert opened.last
    span = ["--from", str(opened.first), "--as-of", str(opened.last)]
    for source in SOURCES:
        command("include.ingest", "land", "--source", source, *span)
        command("expectations.raw", "--source", source, *span)
        command("include.ingest", "load", "--source", source, *span)
    return opened.last


def repeat(conn: psycopg.Connection, n_items: int) -> int:
    """Repeat the raw rows under other keys until there are about ``n_items`` order items; how many there are."""
    count = """select (select count(*) from raw_demo_shop.oc_order_product)
                    + (select count(*) from raw_demo_outlet.order_items)"""
    (there,) = conn.execute(count).fetchone() or (0,)
    times = max(round(n_items / there), 1)
    for schema, table in _tables(conn):
        kinds = _columns(conn, schema, table)
        n_copies = times if {"order_id", *PEOPLE} & kinds.keys() else min(times, CATALOGUES)
        names = {
            "table": sql.Identifier(schema, table),
            "names": sql.SQL(", ").join(map(sql.Identifier, kinds)),
            "values": sql.SQL(", ").join(_shifted(name, kind, n_copies) for name, kind in kinds.items()),
        }
        conn.execute(sql.SQL("create temporary table once on commit drop as select * from {table}").format(**names))
        conn.execute(sql.SQL("truncate {table}").format(**names))
        conn.execute(
            # As nights would have brought them, day by day.
            sql.SQL(
                """insert into {table} ({names})
                   select {values} from once, generate_series(0, %s) as n order by partition_on, n"""
            ).format(**names),
            (n_copies - 1,),
        )
        conn.commit()
        say(f"{schema}.{table}: times {n_copies}")
    (there,) = conn.execute(count).fetchone() or (0,)
    return there


def _tables(conn: psycopg.Connection) -> list[tuple[str, str]]:
    return conn.execute(
        """select schemaname, tablename from pg_tables where schemaname = any(%s) and left(tablename, 1) <> '_'
           order by 1, 2""",
        ([f"raw_{source}" for source in SOURCES],),
    ).fetchall()


def _columns(conn: psycopg.Connection, schema: str, table: str) -> dict[str, str]:
    return dict(
        conn.execute(
            "select column_name, data_type from information_schema.columns where table_schema = %s and table_name = %s "
            "order by ordinal_position",
            (schema, table),
        ).fetchall()
    )


def _shifted(name: str, kind: str, times: int) -> sql.Composable:
    """A column of the n-th copy of ``times``. Numbers that a shop counts on grow with time, in all copies."""
    column = sql.Identifier(name)
    which = sql.SQL("n")
    if name in CATALOGUE:
        which = sql.SQL("mod(n, {})").format(sql.Literal(CATALOGUES))
    if name in PEOPLE:
        return sql.SQL("case when n = 0 then {0} else left(md5({0} || n), 32) end").format(column)
    if name in CATALOGUE or name in SHIFTED:
        if kind == "text":
            return sql.SQL("{} || case when {} > 0 then '-' || {} else '' end").format(column, which, which)
        if name in CATALOGUE:
            return sql.SQL("{} + {} * {}").format(column, which, sql.Literal(STEP))
        return sql.SQL("{} * {} + n").format(column, sql.Literal(times))
    return column


def hold_back(conn: psycopg.Connection, day: date) -> None:
    """Move the rows of ``day`` aside."""
    conn.execute("create schema held")
    for schema, table in _tables(conn):
        names = {"held": sql.Identifier("held", f"{schema}__{table}"), "table": sql.Identifier(schema, table)}
        conn.execute(
            sql.SQL("create table {held} as select * from {table} where partition_on = %s").format(**names), (day,)
        )
        conn.execute(sql.SQL("delete from {table} where partition_on = %s").format(**names), (day,))
    conn.commit()


def bring(conn: psycopg.Connection, day: date) -> int:
    """What a load does to raw with the rows that were held back; how many."""
    n_rows = 0
    for source in map(load_source, SOURCES):
        changes = Changes(conn, source)
        for name, entity in source.raw_entities.items():
            names = columns(entity)
            changes.before(name, entity, names, day, day)
            n_rows += conn.execute(
                sql.SQL("insert into {} select * from {}").format(
                    sql.Identifier(source.raw_schema, name), sql.Identifier("held", f"{source.raw_schema}__{name}")
                )
            ).rowcount
            changes.after(name, entity, names, day, day)
        changes.write()
        conn.commit()
    return n_rows


# --- measuring ---------------------------------------------------------------------------------------


def floor(plans: Path | None) -> float:
    """Seconds for the SQL of all models that a full refresh ran, by hand; keeps the plans of the slowest five."""
    from include.settings import settings
    from include.warehouse.engine import connect

    target = settings().home / "dbt" / "target"
    nodes = json.loads((target / "manifest.json").read_text())["nodes"]
    results = json.loads((target / "run_results.json").read_text())["results"]
    ran = [(one["unique_id"], one["execution_time"]) for one in results if one["unique_id"].startswith("model.")]
    started = time.monotonic()
    with connect(autocommit=True) as conn:
        conn.execute("create schema floor")
        for number, (node, _) in enumerate(ran):
            made = nodes[node]["config"]["materialized"]
            kind = "view" if made == "view" else "unlogged table"
            conn.execute(f"create {kind} floor.m{number} as {_compiled(node, results)}")
            # What reads it reads dbt's own: two copies of everything need not fit on the disk.
            conn.execute(f"drop {kind.split()[-1]} floor.m{number}")
    seconds = time.monotonic() - started
    if plans:
        plans.mkdir(parents=True, exist_ok=True)
        with connect(autocommit=True) as conn:
            for node, its_seconds in sorted(ran, key=lambda one: -one[1])[:5]:
                rows = conn.execute(f"explain (analyze, buffers, settings) {_compiled(node, results)}").fetchall()
                name = node.split(".")[-1]
                (plans / f"{name}.txt").write_text(
                    f"-- {its_seconds:.1f} s\n" + "\n".join(row[0] for row in rows) + "\n"
                )
    with connect(autocommit=True) as conn:
        conn.execute("drop schema floor cascade")
    return seconds


def _compiled(node: str, results: Sequence[dict]) -> str:
    return next(one["compiled_code"] for one in results if one["unique_id"] == node)


def core_checksums() -> dict[str, str]:
    """Table of ``core`` -> checksum over whole rows, but for the columns that say when a row was built."""
    from include.warehouse.engine import connect
    from include.warehouse.publish import checksum

    with connect() as conn:
        tables = conn.execute("select tablename from pg_tables where schemaname = 'core' order by 1").fetchall()
        return {table: str(checksum(conn, "core", table, list(_columns(conn, "core", table)))) for (table,) in tables}


def p99(conn: psycopg.Connection, query: str, keys: Sequence[tuple]) -> float:
    """99th percentile, in milliseconds, of a query as its client sees it."""
    for key in keys[:50]:
        conn.execute(query, key, prepare=True).fetchall()
    seen = []
    for key in keys:
        started = time.perf_counter()
        found = conn.execute(query, key, prepare=True).fetchall()
        seen.append(time.perf_counter() - started)
        if not found:
            raise SystemExit(f"No row for {key}: {query}")
    return sorted(seen)[int(len(seen) * 0.99)] * 1000


def lookups() -> dict[str, float]:
    """Latencies of what BI asks most."""
    from include.warehouse.engine import connect

    with connect() as conn:
        orders = conn.execute("select marketplace, order_id from published.fact_order").fetchall()
        vendors = conn.execute(
            "select distinct marketplace, vendor_id from published.fact_order_item where vendor_id is not null"
        ).fetchall()
    rng = random.Random(7)
    with connect("bi_reader", autocommit=True) as conn:
        return {
            "key_p99_ms": round(
                p99(
                    conn,
                    "select * from bi.fact_order where marketplace = %s and order_id = %s",
                    rng.sample(orders, N_LOOKUPS),
                ),
                2,
            ),
            "topn_p99_ms": round(
                p99(
                    conn,
                    "select * from bi.fact_order_item where marketplace = %s and vendor_id = %s "
                    f"order by item_amount desc limit {TOP}",
                    rng.choices(vendors, k=N_LOOKUPS),
                ),
                2,
            ),
        }


def dag_seconds(day: date) -> float:
    """From the trigger of Airflow's ``warehouse`` run to the end of ``build_models``, with services up and idle."""
    from include.night import register
    from include.services import supervisor
    from include.services.airflow_api import FINISHED, Airflow

    try:
        supervisor.up(say)
        with Airflow() as api:
            register(api)
            started = time.time()
            run_id = api.trigger("warehouse", str(day))
            while True:
                tasks = {one["task_id"]: one for one in api.task_instances("warehouse", run_id)}
                build = tasks.get("build_models", {})
                if build.get("state") in FINISHED:
                    if build["state"] != "success":
                        raise SystemExit("The DAG's build failed.")
                    return time.time() - started
                time.sleep(0.5)
    finally:
        supervisor.down()


def measure(found: dict[str, float | bool], rows: int, plans: Path | None, *, with_dag: bool, with_check: bool) -> None:
    """Everything, into ``found``; figures as the module says. What was measured before an error is in it."""
    with own_home():
        from include.warehouse.engine import connect

        day = base()
        with connect() as conn:
            n_items = repeat(conn, rows)
            hold_back(conn, day)
        with connect(autocommit=True) as conn:
            conn.execute("vacuum analyze")
        build: Callable[[date], float] = lambda on: command("include.dbt", "build", "--as-of", str(on))
        before = day - timedelta(days=1)
        found |= {"rows": n_items, "full_s": build(before)}
        found["floor_s"] = floor(plans)
        found["publish_full_s"] = command("include.warehouse.marts", "--as-of", str(before))
        with connect(autocommit=True) as conn:
            # What autovacuum and a checkpoint do with new tables within half an hour, long before the next night.
            conn.execute("vacuum analyze")
            conn.execute("checkpoint")
        with connect() as conn:
            found["day_rows"] = bring(conn, day)
        found["incremental_s"] = build(day)
        found["ratio"] = found["incremental_s"] / found["full_s"]
        found["publish_s"] = command("include.warehouse.marts", "--as-of", str(day))
        with connect(autocommit=True) as conn:
            conn.execute("vacuum analyze")
        found |= lookups()
        if with_check:
            after_day = core_checksums()
            command("include.dbt", "build", "--as-of", str(day), "--full-refresh")
            found["is_equal"] = core_checksums() == after_day
        if with_dag:
            plain = build(day)
            found["dag_over_dbt"] = dag_seconds(day) / plain


def show(found: dict[str, float | bool], *, as_json: bool) -> None:
    """The figures on stdout."""
    print(json.dumps(found) if as_json else "\n".join(f"{name:16}{value}" for name, value in found.items()))


def main(argv: list[str] | None = None) -> int:
    """Command line; the figures on stdout, progress on stderr; 1 when the day takes over 1/20 of the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="order items; default 1000000")
    parser.add_argument("--plans", type=Path, help="folder for the plans of the slowest five models")
    parser.add_argument("--dag", action="store_true", help="measure the DAG in Airflow as well")
    parser.add_argument("--check", action="store_true", help="compare with a full refresh as well")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line per figure")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: dict[str, float | bool] = {}
    try:
        measure(found, args.rows, args.plans, with_dag=args.dag, with_check=args.check)
    except KeyboardInterrupt:
        print("interrupted; everything is cleaned up", file=sys.stderr)
        return 130
    finally:
        found = {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}
        if found:
            show(found, as_json=args.json)
    return int(args.rows >= 10_000_000 and found["ratio"] > 1 / 20)


if __name__ == "__main__":
    sys.exit(main())
