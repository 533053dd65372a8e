"""Fill the demo's source systems: the shop's database, the outlet's files, the click files. All or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from include.demo.sizes import FULL, Sizes
from include.settings import settings
from include.warehouse.engine import connect

if TYPE_CHECKING:
    import pyarrow as pa

FILES = ("outlet", "clicks")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Filled:
    """What a fill did: ``is_new`` is False when everything was there already. Counts are rows (or lines, or files)."""

    is_new: bool
    seconds: float
    counts: dict[str, int]


@dataclass(frozen=True)
class Marketplace:
    """A generated marketplace in memory: tables by name, files by path below ``<home>/demo``."""

    shop: dict[str, pa.Table]
    truth: dict[str, pa.Table]
    files: dict[str, bytes]
    counts: dict[str, int]


def fill(sizes: Sizes = FULL, progress: Callable[[str], None] | None = None) -> Filled:
    """Fill the source systems with a marketplace of ``sizes``, seeded by ``settings().seed``.

    Idempotent: the same parameters and generator find their marker and return at once; others replace
    everything. Killed at any moment it leaves either the old database or the new, and a next call that
    sees the difference between database and files does it again. Two calls at once take turns.
    """
    started = perf_counter()
    say = progress or (lambda _: None)
    home = settings().home / "demo"
    fingerprint = _fingerprint(sizes)
    with connect(database="shop") as conn:
        conn.execute("select pg_advisory_xact_lock(hashtext('emporium.demo.fill'))")
        beside = home / ".filling"
        shutil.rmtree(beside, ignore_errors=True)
        if (counts := _marker(conn, fingerprint)) is not None and _manifest(home) == fingerprint:
            say("demo marketplace: already filled")
            return Filled(False, perf_counter() - started, counts)
        world = generate(sizes, say)
        _write_files(beside, world.files)
        say(f"demo files: {len(world.files):,} written, {perf_counter() - started:.1f} s")
        _load(conn, world, sizes, fingerprint)
        n_rows = sum(table.num_rows for table in world.shop.values())
        say(f"demo shop: {n_rows:,} rows in {len(world.shop)} tables, {perf_counter() - started:.1f} s")
        _swap_in(home, beside, fingerprint)
    with connect(database="shop", autocommit=True) as conn:
        conn.execute("analyze")
    say(f"demo marketplace: filled in {perf_counter() - started:.1f} s")
    return Filled(True, perf_counter() - started, world.counts)


def generate(sizes: Sizes = FULL, progress: Callable[[str], None] | None = None) -> Marketplace:
    """The whole marketplace in memory, without touching a disk or a database. The same seed gives the same bytes."""
    import numpy as np

    from include.demo import aftermath, catalogue, clicks, outlet, people, shop, simulate, truth

    say = progress or (lambda _: None)
    started = perf_counter()
    first, n_days = sizes.first_day, sizes.n_days
    # One stream of randomness a part, so that a change in one part leaves the others as they were.
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(settings().seed).spawn(10)]
    n_shop, n_outlet = sizes.shop.customers, sizes.outlet.customers
    n_fraud = sizes.fraud_bursts * 34
    pool = people.draw_people(n_shop + n_fraud + n_outlet, streams[0])
    shoppers = np.arange(n_shop)
    n_shared = round(sizes.shared_share * n_outlet)
    outlet_people = np.concatenate(
        [streams[0].choice(n_shop, n_shared, replace=False), n_shop + n_fraud + np.arange(n_outlet - n_shared)]
    )

    sims = {}
    for name, size, persons, categories, rng in (
        ("demo_shop", sizes.shop, shoppers, catalogue.SHOP_CATEGORIES, streams[1]),
        ("demo_outlet", sizes.outlet, outlet_people, catalogue.OUTLET_CATEGORIES, streams[2]),
    ):
        goods = catalogue.build_catalogue(size, categories, first, n_days, rng)
        buyers = simulate.draw_customers(size, persons, sizes.existing_share, first, n_days, rng)
        sims[name] = simulate.simulate(buyers, goods, pool.zone[buyers.person], first, n_days, rng)
    spare = n_shop + np.arange(n_fraud)
    sims["demo_shop"] = simulate.add_fraud(sims["demo_shop"], sizes.fraud_bursts, spare, streams[3])
    sims = {name: simulate.in_time_order(sim) for name, sim in sims.items()}
    say(
        f"demo history: {sum(int((~s.orders['is_abandoned']).sum()) for s in sims.values()):,} orders "
        f"{sizes.first_day}..{sizes.last_day}, {perf_counter() - started:.1f} s"
    )
    gtins = aftermath.gtins(sims, streams[7])
    tables, dirt_shop = shop.shop_tables(sims["demo_shop"], pool, gtins["demo_shop"], streams[4], streams[8])
    csv_files, dirt_outlet, n_csv = outlet.outlet_files(
        sims["demo_outlet"], pool, gtins["demo_outlet"], sizes, streams[5], streams[9]
    )
    click_files, dirt_clicks, n_events = clicks.click_files(sims["demo_shop"], pool, sizes, streams[6])
    dirt = dirt_shop + dirt_outlet + dirt_clicks
    say(f"demo files: {n_csv:,} CSV rows, {n_events:,} click events, {perf_counter() - started:.1f} s")
    counts = {f"shop.{name}": table.num_rows for name, table in tables.items()}
    counts |= {"outlet rows": n_csv, "click events": n_events, "planted dirt": len(dirt)}
    return Marketplace(tables, truth.truth_tables(sims, pool, gtins, dirt), csv_files | click_files, counts)


def _fingerprint(sizes: Sizes) -> str:
    """What decides a fill's bytes: the parameters and the generator's own source."""
    version = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        version.update(path.read_bytes())
    parameters = {
        "seed": settings().seed,
        "first_day": sizes.first_day.isoformat(),
        "last_day": sizes.last_day.isoformat(),
        "sizes": asdict(sizes),
        "version": version.hexdigest(),
    }
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


def _marker(conn: psycopg.Connection, fingerprint: str) -> dict[str, int] | None:
    if conn.execute("select to_regclass('truth.fill')").fetchone() == (None,):
        return None
    row = conn.execute("select counts from truth.fill where fingerprint = %s", (fingerprint,)).fetchone()
    return row[0] if row else None


def _manifest(home: Path) -> str | None:
    if not all((home / part).is_dir() for part in FILES):
        return None
    try:
        return json.loads((home / MANIFEST).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    made = set()
    for name, content in files.items():
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(content)


def _swap_in(home: Path, beside: Path, fingerprint: str) -> None:
    """Put the new files in place. The manifest goes first and comes last: without it nothing counts as filled."""
    (home / MANIFEST).unlink(missing_ok=True)
    for part in FILES:
        if (home / part).exists():
            (home / part).rename(beside / f"old-{part}")
        (beside / part).rename(home / part)
    manifest = beside / MANIFEST
    manifest.write_text(json.dumps({"fingerprint": fingerprint}) + "\n")
    os.replace(manifest, home / MANIFEST)
    shutil.rmtree(beside, ignore_errors=True)


def _load(conn: psycopg.Connection, world: Marketplace, sizes: Sizes, fingerprint: str) -> None:
    """Replace schemas ``shop`` and ``truth`` in the caller's transaction; the marker row is the last one written."""
    from include.demo import shop, truth

    conn.execute("set local client_min_messages = warning")
    conn.execute("drop schema if exists shop cascade; drop schema if exists truth cascade")
    conn.execute("create schema shop; create schema truth")
    conn.execute("comment on schema truth is 'What the generator planted; for tests only, no role may read it'")
    # By default privileges: tables that are made later are covered too.
    conn.execute("grant usage on schema shop to shop_reader")
    conn.execute("alter default privileges in schema shop grant select on tables to shop_reader")
    conn.execute("revoke all on schema truth from public")
    conn.execute(shop.DDL)
    conn.execute(truth.DDL)
    for schema, tables in (("shop", world.shop), ("truth", world.truth)):
        for name, table in tables.items():
            _copy(conn, schema, name, table)
    conn.execute(shop.INDEXES)
    conn.execute(
        "create table truth.fill (fingerprint text primary key, seed bigint, sizes jsonb, counts jsonb, "
        "first_day date, last_day date)"
    )
    conn.execute(
        "insert into truth.fill values (%s, %s, %s, %s, %s, %s)",
        (
            fingerprint,
            settings().seed,
            json.dumps(asdict(sizes)),
            json.dumps(world.counts),
            sizes.first_day,
            sizes.last_day,
        ),
    )


def _copy(conn: psycopg.Connection, schema: str, name: str, table: pa.Table) -> None:
    from pyarrow import csv

    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        sql.Identifier(schema, name), sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    )
    buffer = io.BytesIO()
    csv.write_csv(table, buffer, csv.WriteOptions(include_header=False))
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(buffer.getvalue())
