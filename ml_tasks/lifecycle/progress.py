"""Progress lines: what, how many rows, how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def step(what: str) -> Iterator[dict]:
    """Prints ``what`` with its seconds when done; put counts into the yielded dict to have them printed."""
    started = time.perf_counter()
    notes: dict = {}
    yield notes
    said = [f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in notes.items()]
    details = "".join(f", {one}" for one in said)
    print(f"{what}{details} ({time.perf_counter() - started:.1f} s)", flush=True)
