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
import resource
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
SAMPLE_SECONDS = 0.2


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
    agents = pa.array(
        [
            "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Safari/604.1",
            "ExampleBot/2.1 (+https://bot.example.org)",
        ]
    )
    agent = np.where(is_bot, 2, visitor % 2)
    text = pc.binary_join_element_wise(
        '{"event_id":"', _hex(ids), '","visitor_id":"v', pa.array(visitor[visit]).cast(pa.string()),
        '","customer_email":', email.take(pa.array(visit)),
        ',"event_type":"', kind.take(pa.array(rng.choice(4, n, p=[0.8, 0.1, 0.07, 0.03]))),
        '","product_id":"', pa.array(rng.zipf(1.4, n) % 20_000).cast(pa.string()),
        '","event_at":"', _time(at), 'Z","sent_at":"', _time(sent),
        'Z","campaign":', campaign.take(pa.array(chosen_campaign[visit])),
        ',"user_agent":"', agents.take(pa.array(agent[visit])), '"}', "",
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
