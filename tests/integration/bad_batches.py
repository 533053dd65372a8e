"""Spoil a day's outlet file, to see a gate stop the batch."""

import csv
import io
import math
from datetime import date

from include.settings import settings


def plant_bad_order_items(day: date, share: float = 0.08) -> int:
    """Break more than ``share`` of the rows of the day's outlet ``order_items.csv``; returns how many.

    The price of broken rows is no number. Spread over the file, the same rows on every call, so calling it
    twice leaves the file as after one call. ``restore`` undoes it.
    """
    path = settings().home / "demo" / "outlet" / day.isoformat() / "order_items.csv"
    kept = path.with_suffix(".csv.whole")
    if not kept.exists():
        kept.write_bytes(path.read_bytes())
    header, *rows = csv.reader(io.StringIO(kept.read_text()))
    n_broken = math.floor(share * len(rows)) + 1
    if n_broken > len(rows):
        raise ValueError(f"{path} has {len(rows)} rows: {n_broken} of them cannot be broken.")
    price = header.index("unit_price")
    for number in range(n_broken):
        rows[number * len(rows) // n_broken][price] = "twelve"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.write_text(text.getvalue())
    return n_broken


def restore(day: date) -> None:
    """Put the day's file back as the shop wrote it."""
    path = settings().home / "demo" / "outlet" / day.isoformat() / "order_items.csv"
    kept = path.with_suffix(".csv.whole")
    if kept.exists():
        kept.replace(path)
