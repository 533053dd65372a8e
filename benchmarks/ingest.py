"""How fast events come in: ``python -m benchmarks.ingest --gb 1 --json``.

Generates that many GB of JSON lines as the demo's click stream sends them (visitors that come back, late events,
repeats, bots, a few broken lines; seeded), and takes them in with the commands of a night: the stream to bronze, the
gate, the sessions to the warehouse. The floor, in the same run, reads the same bytes and COPYs them into a table of one
column. Everything happens in a home of its own with a Postgres of its own, which end with the command.

GB/h are of bytes as they arrive, by the wall. Generating is not counted, starting the commands is. ``peak_rss_mb`` is
the most that one of the commands weighed, with the JVM and the workers it started; Postgres is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from include.settings import ROOT

FIRST_DAY = date(2025, 3, 1)
EVENTS_A_CHUNK = 200_000
FILES_A_DAY = 24
DAY_MS = 86_400_000
LATE_SHARE, REPEAT_SHARE, BROKEN_SHARE, BOT_SHARE = 0.01, 0.004, 0.0002, 0.02
GB = 1e9
SAMPLE_SECONDS = 1.0
"""To weigh a JVM of a gigabyte takes some 30 ms of CPU: five times a second was part of the figures."""


# --- events ------------------------------------------------------------------------------------------


def events(rng: np.random.Generator, day: date, hour: int, n: int) -> bytes:
    """``n`` events that arrive in an hour, as JSON lines."""
    start = np.datetime64(day, "ms").astype("int64") + hour * (DAY_MS // FILES_A_DAY)
    # A visit is some ten events within minutes; bots make hundreds.
    visit = np.repeat(np.arange(n), rng.geometric(0.1, n))[:n]
    n_visits = visit[-1] + 1
    is_bot = rng.random(n_visits) < BOT_SHARE / 10
    visitor = (rng.random(n_visits) ** 3 * 400_000).astype("int64")
    visitor = np.where(is_bot, 1_000_000 + visitor % 50, visitor)
    began = rng.integers(0, DAY_MS // FILES_A_DAY, n_visits)
    at = start + (began[visit] + rng.integers(0, 900_000, n)) % (DAY_MS // FILES_A_DAY)
    is_late = rng.random(n) < LATE_SHARE
    sent = at + rng.integers(80, 2500, n)
    at = np.where(is_late, at - rng.integers(DAY_MS // 24, 2 * DAY_MS, n), at)
    ids = rng.integers(0, 2**63, n)
    again = np.flatnonzero(rng.random(n) < REPEAT_SHARE)
    again = again[again > 0]
    for column in (ids, at, visit):
        column[again] = column[again - 1]

    campaign = pa.array(["null", '"newsletter"', '"search-ads"', '"social"'])
    kind = pa.array(["view", "search", "cart", "purchase"])
    chosen_campaign = rng.choice(4, n_visits, p=[0.72, 0.12, 0.10, 0.06])
    is_known = rng.random(n_visits) < 0.3
    email = pc.binary_join_element_wise('"c', pa.array(visitor).cast(pa.string()), '@example.org"', "")
    email = pc.if_else(pa.array(is_known), email, "null")
    text = pc.binary_join_element_wise(
        '{"event_id":"', _hex(ids), '","visitor_id":"v', pa.array(visitor[visit]).cast(pa.string()),
        '","customer_email":', email.take(pa.array(visit)),
        ',"event_type":"', kind.take(pa.array(rng.choice(4, n, p=[0.8, 0.1, 0.07, 0.03]))),
        '","product_id":"', pa.array(rng.zipf(1.4, n) % 20_000).cast(pa.string()),
        '","event_at":"', _time(at), 'Z","sent_at":"', _time(sent),
        'Z","campaign":', campaign.take(pa.array(chosen_campaign[visit])),
        "}", "",
    )  # fmt: skip
    broken = rng.random(n) < BROKEN_SHARE
    text = pc.if_else(pa.array(broken), pc.utf8_slice_codeunits(text, 0, 100), text)
    return b"\n".join(pc.cast(text, pa.binary()).to_pylist()) + b"\n"


def _hex(ids: np.ndarray) -> pa.Array:
    digits = np.frombuffer(ids.astype(">i8").tobytes(), "uint8").reshape(-1, 8)
    letters = np.frombuffer(b"0123456789abcdef", "uint8")
    pairs = np.empty((len(ids), 16), "uint8")
    pairs[:, ::2], pairs[:, 1::2] = letters[digits >> 4], letters[digits & 15]
    return pa.array(np.ascontiguousarray(pairs).view("S16").ravel()).cast(pa.string())


def _time(milliseconds: np.ndarray) -> pa.Array:
    return pc.strftime(pa.array(milliseconds, pa.timestamp("ms")), "%Y-%m-%dT%H:%M:%S")


def generate(folder: Path, n_bytes: float, seed: int) -> list[date]:
    """Hourly files of about ``n_bytes`` together, a gigabyte a day; the days."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    sample = len(events(rng, FIRST_DAY, 0, 20_000)) / 20_000
    n_days = max(round(n_bytes / GB), 1)
    per_hour = int(n_bytes / sample / n_days / FILES_A_DAY)
    made = [FIRST_DAY + timedelta(days=offset) for offset in range(n_days)]
    for day in made:
        for hour in range(FILES_A_DAY):
            with open(folder / f"{day}T{hour:02}.jsonl", "wb") as handle:
                for start in range(0, per_hour, EVENTS_A_CHUNK):
                    handle.write(events(rng, day, hour, min(EVENTS_A_CHUNK, per_hour - start)))
    return made


# --- measuring ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_home() -> Iterator[Path]:
    """An empty home with a migrated Postgres, both gone afterwards, however it ends."""
    home = Path(tempfile.mkdtemp(prefix="emporium-bench-"))
    home.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    from include.settings import settings

    jars = settings().jars_dir
    for name in [one for one in os.environ if one.startswith("EMPORIUM_") and not one.startswith("EMPORIUM_SPARK_")]:
        del os.environ[name]
    os.environ |= {"EMPORIUM_HOME": str(home), "EMPORIUM_PG_PORT": str(port), "EMPORIUM_JARS": str(jars)}
    settings.cache_clear()
    from include.ingest.tables import prepare
    from include.services import postgres
    from include.warehouse.migrate import migrate

    try:
        postgres.start()
        migrate()
        prepare()
        yield home
    finally:
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Ran:
    """A command that ended: wall and CPU seconds with its children, the most memory they had at once."""

    wall: float
    cpu: float
    peak_mb: float


class _Sampler(threading.Thread):
    """CPU seconds and most memory of a process and all its descendants; shared pages count once.

    The JVM is nobody's child when it ends, so its CPU time has to be watched as well.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.stopped = psutil.Process(pid), 0.0, threading.Event()
        self.cpu: dict[int, float] = {}

    def run(self) -> None:
        while not self.stopped.wait(SAMPLE_SECONDS):
            total = 0
            with contextlib.suppress(psutil.Error):
                for process in [self.root, *self.root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_full_info().pss
                        times = process.cpu_times()
                        self.cpu[process.pid] = times.user + times.system
            self.peak = max(self.peak, total / 1e6)


def run(module: str, *arguments: str) -> Ran:
    """``python -m module arguments``; ``SystemExit`` with its last lines where it fails."""
    started = time.monotonic()
    # A group of its own, so that it and its JVM can be ended together.
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        sampler = _Sampler(process.pid)
        sampler.start()
        try:
            output, _ = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            sampler.stopped.set()
    wall = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"python -m {module} {' '.join(arguments)} failed:\n{output[-30000:]}")
    print("\n".join(f"  {line}" for line in output.splitlines() if "WARNING" not in line), file=sys.stderr)
    ran = Ran(wall, sum(sampler.cpu.values()), sampler.peak)
    print(f"  {module}: {ran.wall:.1f} s, {ran.cpu:.1f} CPU seconds, {ran.peak_mb:.0f} MB", file=sys.stderr)
    return ran


def floor(folder: Path) -> float:
    """Seconds to read the files and COPY their lines into an unlogged table of one column: every byte of them."""
    from include.warehouse.engine import connect

    started = time.monotonic()
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute("create unlogged table public.floor (line text)")
        # No character of a line means this quote or this delimiter.
        with cursor.copy("copy public.floor from stdin (format csv, quote e'\\x01', delimiter e'\\x02')") as copy:
            for path in sorted(folder.iterdir()):
                with open(path, "rb") as handle:
                    while data := handle.read(2**20):
                        copy.write(data)
    seconds = time.monotonic() - started
    with connect() as conn:
        (n_bytes,) = conn.execute("select sum(octet_length(line) + 1) from public.floor").fetchone() or (0,)
        conn.execute("drop table public.floor")
    if n_bytes != sum(path.stat().st_size for path in folder.iterdir()):
        raise SystemExit(f"The floor is none: {n_bytes} bytes are in Postgres.")
    return seconds


def measure(gigabytes: float, seed: int) -> dict[str, float]:
    """Generate, take the floor, bring to bronze, make sessions; the figures."""
    with own_home() as home:
        folder = home / "demo" / "clicks"
        print(f"generating {gigabytes} GB in {folder}", file=sys.stderr)
        made = generate(folder, gigabytes * GB, seed)
        size = sum(path.stat().st_size for path in folder.iterdir()) / GB
        floor_seconds = floor(folder)
        days = ["--source", "demo_clicks", "--from", str(made[0]), "--as-of", str(made[-1])]
        bronze = run("spark_jobs.stream", *days)
        gate = run("expectations.raw", *days)
        sessions = run("spark_jobs.sessions", *days)
        commands = (bronze, gate, sessions)
        hours = sum(one.wall for one in commands) / 3600
        from include.warehouse.engine import connect

        with connect() as conn:
            counted = conn.execute(
                "select sum(n_in), sum(n_loaded), sum(n_duplicate), sum(n_quarantined) from ops.load_audit"
            ).fetchone()
            sessions_made = conn.execute("select count(*) from raw_demo_clicks.sessions").fetchone()
        assert counted
        assert sessions_made
        return {
            "gb": round(size, 3),
            "events": int(counted[0]),
            "loaded": int(counted[1]),
            "duplicates": int(counted[2]),
            "quarantined": int(counted[3]),
            "sessions": int(sessions_made[0]),
            "bronze_seconds": round(bronze.wall, 1),
            "gate_seconds": round(gate.wall, 1),
            "sessions_seconds": round(sessions.wall, 1),
            "floor_seconds": round(floor_seconds, 1),
            "bronze_cpu_seconds": round(bronze.cpu, 1),
            "gate_cpu_seconds": round(gate.cpu, 1),
            "sessions_cpu_seconds": round(sessions.cpu, 1),
            "bronze_gb_per_hour": round(size / bronze.wall * 3600, 1),
            "through_gb_per_hour": round(size / hours, 1),
            "floor_gb_per_hour": round(size / floor_seconds * 3600, 1),
            "bronze_peak_mb": round(bronze.peak_mb),
            "gate_peak_mb": round(gate.peak_mb),
            "sessions_peak_mb": round(sessions.peak_mb),
            "peak_rss_mb": round(max(one.peak_mb for one in commands)),
        }


def main(argv: list[str] | None = None) -> int:
    """Command line; the figures on stdout, progress on stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=1.0, help="gigabytes (1e9 bytes) of events; default 1")
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line per figure")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        figures = measure(args.gb, args.seed)
    except KeyboardInterrupt:
        print("interrupted; everything is cleaned up", file=sys.stderr)
        return 130
    print(json.dumps(figures) if args.json else "\n".join(f"{name:24}{value}" for name, value in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
