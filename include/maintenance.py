"""Lake care: ``python -m include.maintenance --as-of D [--keep-days N [--force]]``.

For every Delta table of the lake: small files become large ones (OPTIMIZE), files that no version of the last
``EMPORIUM_LAKE_RETENTION_DAYS`` days needs are removed (VACUUM), and the log is checkpointed and cut to the same days.
Then the spool of streams and the logs of Airflow's tasks: what is older goes, if bronze has it.

No row changes, and no verdict: a day of bronze is known by its content. It may run beside a night: tables that a task
is writing are left for the next time, and a reader keeps the version that it opened. A second run finds nothing to do.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import psycopg
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from psycopg import sql
from pyarrow.fs import FileSelector, FileSystem, FileType

from include import lake
from include.dates import parse_day
from include.ingest.connectors import connector
from include.ingest.connectors.stream import Stream, expected
from include.ingest.sources import Source, sources
from include.services.environment import airflow_home
from include.settings import settings
from include.warehouse.engine import connect

LEAST_DAYS = 7
"""Delta's own default: what may still be read. Less needs ``--force``, and nothing else running."""

WAIT_SECONDS = 30
N_TRIES = 3
DEPTH = 3
"""Folders between the lake's root and a table, at most."""

EXPORT_LOCK = "emporium.export"


@dataclass(frozen=True)
class Cared:
    """What was done for a table or folder."""

    name: str
    n_before: int
    """Data files of the newest version, or files of a folder."""
    n_after: int
    n_removed: int
    bytes_freed: int
    seconds: float
    note: str = ""
    is_failed: bool = False


def maintain(as_of: date, keep_days: int | None = None) -> Iterator[Cared]:
    """Look after the lake, the streams' spool and the logs; yields what was done, table by table.

    A table that is being written is passed over with a note; one that cannot be cared for is marked as failed.
    """
    keep_days = settings().lake_retention_days if keep_days is None else keep_days
    for name in tables():
        yield _care(name, as_of, keep_days)
    yield from _spools(keep_days)
    yield _tried("airflow/logs", lambda: _old_files("airflow/logs", airflow_home() / "logs", keep_days))


def tables() -> list[str]:
    """The Delta tables of the lake as paths below its root, such as ``bronze/olist/orders``."""
    fs, root = _lake()

    def below(folder: str, depth: int) -> Iterator[str]:
        if folder != root and fs.get_file_info(f"{folder}/_delta_log").type == FileType.Directory:
            yield folder[len(root) + 1 :]
        elif depth:
            for one in fs.get_file_info(FileSelector(folder, allow_not_found=True)):
                if one.type == FileType.Directory:
                    yield from below(one.path, depth - 1)

    return sorted(below(root, DEPTH))


def _lake() -> tuple[FileSystem, str]:
    root = settings().lake_root
    fs, path = FileSystem.from_uri(root if "://" in root else Path(root).absolute().as_uri())
    return fs, path.rstrip("/")


# --- a table -----------------------------------------------------------------------------------------


def _care(name: str, as_of: date, keep_days: int) -> Cared:
    started = time.monotonic()
    n_before = n_after = n_removed = freed = 0
    note, is_failed = "", False
    uri = lake.table_uri(*name.split("/"))
    try:
        with _held(name) as is_free:
            n_before = n_after = len(DeltaTable(uri).file_uris())
            if is_free:
                _keep(uri, keep_days)
                note = _compact(uri, name, as_of)
                n_after = len(DeltaTable(uri).file_uris())
                n_removed, freed = _vacuum(uri, name, keep_days)
                _cut_log(uri)
            else:
                note = "busy: it is being written, next time"
    except (DeltaError, OSError) as error:
        note, is_failed = str(error).splitlines()[0], True
    return Cared(name, n_before, n_after, n_removed, freed, time.monotonic() - started, note, is_failed)


@contextmanager
def _held(name: str) -> Iterator[bool]:
    """Keep the tasks that write a table from it; False when one of them does not let go within ``WAIT_SECONDS``.

    Bronze is written under its source's lock, silver under one of them, core under the export's. Features have
    none: there the newest partition is left alone.
    """
    layer, *rest = name.split("/")
    locks = [f"ingest.{rest[0]}"] if layer == "bronze" else [EXPORT_LOCK] if layer == "core" else []
    if layer == "silver":
        locks = [f"ingest.{source.source}" for source in sources()]
    until = time.monotonic() + WAIT_SECONDS
    with connect("loader") as conn:
        for one in locks:
            while not _taken(conn, one):
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(0.5)
        yield True


def _taken(conn: psycopg.Connection, name: str) -> bool:
    return conn.execute("select pg_try_advisory_xact_lock(hashtext(%s))", (name,)).fetchone() == (True,)


def _keep(uri: str, keep_days: int) -> None:
    """Tables that were made without a retention, or with another, get this one."""
    table = DeltaTable(uri)
    wanted = {key: value for key, value in lake.properties([]).items() if key != lake.STATISTICS}
    kept = f"interval {keep_days} days"
    wanted |= {key: kept for key in wanted if key.endswith("RetentionDuration")}
    found = table.metadata().configuration
    if any(found.get(key) != value for key, value in wanted.items()):
        table.alter.set_table_properties(wanted)


def _compact(uri: str, name: str, as_of: date) -> str:
    """Small files of a partition together, to about 100 MB. Returns a note."""
    for _ in range(N_TRIES):
        table = DeltaTable(uri)
        is_of_days = table.metadata().partition_columns == ["as_of"]
        try:
            # Spark replaces a partition of features without a lock; one of an earlier day is only read.
            table.optimize.compact(
                partition_filters=[("as_of", "<", as_of.isoformat())] if is_of_days else None, max_concurrent_tasks=2
            )
            return ""
        except CommitFailedError:
            # Somebody wrote the same files meanwhile: their version counts, ours is made anew.
            continue
    return f"{name} is being written: compacted next time"


def _vacuum(uri: str, name: str, keep_days: int) -> tuple[int, int]:
    """Remove what no version within the retention needs; (files, bytes)."""
    table = DeltaTable(uri)
    hours = keep_days * 24
    # A shorter retention than the least was forced by hand.
    is_kept = keep_days >= LEAST_DAYS
    unneeded = table.vacuum(hours, dry_run=True, full=True, enforce_retention_duration=is_kept)
    if not unneeded:
        return 0, 0
    fs, root = _lake()
    sizes = fs.get_file_info([f"{root}/{name}/{one}" for one in unneeded])
    table.vacuum(hours, dry_run=False, full=True, enforce_retention_duration=is_kept)
    return len(unneeded), sum(one.size or 0 for one in sizes)


def _cut_log(uri: str) -> None:
    """A checkpoint of the newest version, where there is none yet, then the log as far as the retention lets it."""
    table = DeltaTable(uri)
    table.create_checkpoint()
    table.cleanup_metadata()


# --- folders -----------------------------------------------------------------------------------------


def _spools(keep_days: int) -> Iterator[Cared]:
    """Pieces of streams that bronze has, a day at a time; the text of their broken lines is in the quarantine."""
    for source in sources():
        for name in source.entities:
            folder = settings().home / "streams" / source.source / "spool" / name
            if folder.is_dir():
                label = f"streams/{source.source}/spool/{name}"
                yield _tried(label, partial(_spool, label, folder, source, name, keep_days))


def _tried(label: str, do: Callable[[], Cared]) -> Cared:
    """What cannot be read or removed fails its own folder; the rest is looked after all the same."""
    started = time.monotonic()
    try:
        return do()
    except OSError as error:
        return Cared(label, 0, 0, 0, 0, time.monotonic() - started, str(error), is_failed=True)


def _with_status(paths: Iterable[Path]) -> list[tuple[Path, os.stat_result]]:
    """The files among the paths; one that somebody else just removed is none."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((path, status))
    return found


def _spool(label: str, folder: Path, source: Source, name: str, keep_days: int) -> Cared:
    started = time.monotonic()
    limit = time.time() - keep_days * 86_400
    n_files = n_removed = freed = 0
    with _held(f"bronze/{source.source}/{name}") as is_free:
        settled = _settled(source, name) if is_free else set()
        for day in folder.iterdir():
            pieces = _with_status(day.glob("*.jsonl"))
            n_files += len(pieces)
            newest = max((status.st_mtime for _, status in pieces), default=limit)
            if newest < limit and day.name in settled:
                for path, status in pieces:
                    path.unlink(missing_ok=True)
                    n_removed, freed = n_removed + 1, freed + status.st_size
                day.rmdir()
    note = "" if is_free else "busy: it is being written, next time"
    return Cared(label, n_files, n_files - n_removed, n_removed, freed, time.monotonic() - started, note)


def _settled(source: Source, name: str) -> set[str]:
    """Business days of which bronze was found to have every line that was ever taken."""
    reader = connector(source)
    assert isinstance(reader, Stream)
    with connect("loader") as conn:
        taken = expected(reader, conn, date.min, date.max)
        rows = conn.execute(
            sql.SQL("select partition_on, n_rows from {} where entity = %s").format(
                sql.Identifier(source.raw_schema, "_landed")
            ),
            (name,),
        ).fetchall()
    return {str(day) for day, n_rows in rows if taken.get((name, day), 0) == n_rows > 0}


def _old_files(label: str, folder: Path, keep_days: int) -> Cared:
    started = time.monotonic()
    limit = time.time() - keep_days * 86_400
    files = _with_status(folder.rglob("*")) if folder.is_dir() else []
    old = [(path, status) for path, status in files if status.st_mtime < limit]
    for path, _ in old:
        path.unlink(missing_ok=True)
    if old:
        _drop_empty(folder)
    freed = sum(status.st_size for _, status in old)
    return Cared(label, len(files), len(files) - len(old), len(old), freed, time.monotonic() - started)


def _drop_empty(folder: Path) -> None:
    """Remove the empty folders below ``folder``, the deepest first; one that is just being filled stays."""
    for path in sorted((one for one in folder.rglob("*") if one.is_dir()), key=lambda one: -len(one.parts)):
        try:
            path.rmdir()
        except OSError:
            continue


# --- the command -------------------------------------------------------------------------------------


def _line(one: Cared) -> str:
    freed = f", freed {one.bytes_freed / 1e6:,.1f} MB in {one.n_removed:,} files" if one.n_removed else ""
    note = f" ({one.note})" if one.note else ""
    return f"{one.name}: {one.n_before:,} -> {one.n_after:,} files{freed}, {one.seconds:.1f} s{note}"


def main(argv: list[str] | None = None) -> int:
    """Care for everything; 1 when a table could not be cared for, after all the others."""
    parser = argparse.ArgumentParser(prog="python -m include.maintenance", description=__doc__.splitlines()[0])
    parser.add_argument("--as-of", type=parse_day, required=True, metavar="D", help="business day, YYYY-MM-DD")
    parser.add_argument("--keep-days", type=int, metavar="N", help="default EMPORIUM_LAKE_RETENTION_DAYS")
    parser.add_argument("--force", action="store_true", help=f"allow less than {LEAST_DAYS} days: readers may fail")
    args = parser.parse_args(argv)
    if args.keep_days is not None and (args.keep_days < 0 or (args.keep_days < LEAST_DAYS and not args.force)):
        parser.error(
            f"--keep-days {args.keep_days} is less than {LEAST_DAYS}: files that are being read would go. "
            "With --force, when nothing else runs."
        )
    try:
        done = []
        for one in maintain(args.as_of, args.keep_days):
            print(_line(one), flush=True)
            done.append(one)
    except (ValueError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except psycopg.OperationalError as error:
        print(f"The warehouse does not answer: {error}", file=sys.stderr)
        return 1
    failed = [one.name for one in done if one.is_failed]
    print(f"{len(done)} looked after, {sum(one.bytes_freed for one in done) / 1e6:,.1f} MB freed")
    if failed:
        print(f"Not cared for: {', '.join(failed)}; the lines above say why.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
