"""History dumps replayed: on day D only what the shop knew on D is visible.

A dump holds the last state of everything. These functions say on which day each row became known, and take an
order apart into one version per day on which it changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from include.ingest.connectors.base import Options
from include.ingest.types import parse

DAY = np.timedelta64(1, "D")
PURCHASE = "order_purchase_timestamp"
EVENTS = (PURCHASE, "order_approved_at", "order_delivered_carrier_date", "order_delivered_customer_date")
"""What happens to an order, in the order in which it is meant to."""
FINAL = ("canceled", "unavailable")
ORDER = {"column": 0, "order_lifecycle": 0, "with": 1, "first_day": 2}
"""What needs the known times of others comes after them."""


class Known(Options):
    """How we know on which day the shop knew a row of the dump.

    - ``column``: at the time in ``column``
    - ``with``: when the row of ``entity`` with the same ``key`` became known
    - ``first_day``: catalogue data, known from the first day on that is landed
    - ``order_lifecycle``: one version per day on which the order changed (see ``include.ingest.replay``)
    """

    by: Literal["column", "with", "first_day", "order_lifecycle"]
    column: str | None = None
    entity: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Known:
        if self.by == "column" and not self.column:
            raise ValueError("known by `column` needs `column`")
        if self.by == "with" and not (self.entity and self.key):
            raise ValueError("known by `with` needs `entity` and `key`")
        return self


def times(strings: pa.Array) -> np.ndarray:
    """Strings as datetime64[us] in UTC, NaT where there is none or it cannot be read."""
    parsed, _ = parse(strings, "timestamptz")
    return parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def known_times(how: Mapping[str, Known], tables: Mapping[str, pa.Table]) -> dict[str, np.ndarray]:
    """For each entity, when each row of its dump became known: datetime64[us], no NaT.

    Where a row does not say (a broken line, an unreadable time, an unknown order) it counts as known with the
    good line before it in the file, so that a rerun decides the same.
    """
    known: dict[str, np.ndarray] = {}
    for name in sorted(how, key=lambda name: ORDER[how[name].by]):
        one, table = how[name], tables[name]
        if one.by == "column":
            found = times(table.column(one.column).combine_chunks())
        elif one.by == "order_lifecycle":
            found = times(table.column(PURCHASE).combine_chunks())
        elif one.by == "with":
            assert one.entity is not None
            found = _looked_up(table.column(one.key), tables[one.entity].column(one.key), known[one.entity])
        else:
            first = min((one.min() for one in known.values() if len(one)), default=np.datetime64("1970-01-01", "us"))
            found = np.full(len(table), first.astype("datetime64[D]").astype("datetime64[us]"))
        known[name] = _filled(found)
    return known


def _looked_up(keys: pa.ChunkedArray, known_keys: pa.ChunkedArray, known: np.ndarray) -> np.ndarray:
    import pandas as pd

    lookup = pd.Series(known, index=pd.Index(known_keys.to_pandas()))
    lookup = lookup[lookup.index.notna() & ~lookup.index.duplicated()]
    return lookup.reindex(keys.to_pandas()).to_numpy().astype("datetime64[us]")


def _filled(found: np.ndarray) -> np.ndarray:
    import pandas as pd

    filled = pd.Series(found).ffill().bfill().to_numpy().astype("datetime64[us]")
    return np.where(np.isnat(filled), np.datetime64("1970-01-01", "us"), filled)


def take_known(table: pa.Table, known: np.ndarray, first: date, last: date) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Rows that became known on ``first``..``last``, with their known times and their positions in ``table``."""
    days = known.astype("datetime64[D]")
    rows = np.flatnonzero((days >= np.datetime64(first)) & (days <= np.datetime64(last)))
    return table.take(pa.array(rows)), known[rows], rows


def order_versions(
    table: pa.Table, purchased: np.ndarray, first: date, last: date
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The versions of orders that became known on ``first``..``last``, one per (order, day with news).

    A version shows the times known by the end of its day and the status that follows from them: canceled and
    unavailable from the approval day on, or from the purchase day where there is no approval; else the last thing
    that happened. An event dated before the purchase is known at the purchase. Returns the versions in the dump's
    columns, their known times (the newest news of the day) and their positions in ``table``.
    """
    n = len(table)
    events = [times(table.column(name).combine_chunks()) for name in EVENTS]
    # A time that cannot be read stays visible from the purchase on, for the gate to find.
    present = [table.column(name).is_valid().combine_chunks().to_numpy(zero_copy_only=False) for name in EVENTS]
    known = [np.where(np.isnat(event), purchased, np.maximum(event, purchased)) for event in events]
    days = [one.astype("datetime64[D]").astype("int64") for one in known]

    low, high = (np.datetime64(day).astype("int64") for day in (first, last))
    everyone = np.arange(n)
    pairs = []
    for index, (day, is_there) in enumerate(zip(days, present, strict=True)):
        hit = (day >= low) & (day <= high) & (is_there if index else True)
        pairs.append(np.stack([everyone[hit], day[hit]], axis=1))
    versions = np.unique(np.concatenate(pairs), axis=0)
    rows, on = versions[:, 0], versions[:, 1]

    visible = [is_there[rows] & (day[rows] <= on) for day, is_there in zip(days, present, strict=True)]
    known_at = purchased[rows]
    for one, is_visible in zip(known, visible, strict=True):
        known_at = np.where(is_visible, np.maximum(known_at, one[rows]), known_at)

    _, approved, shipped, delivered = visible
    final = table.column("order_status").to_pandas().to_numpy()[rows]
    is_untold = table.column("order_status").is_null().to_numpy()
    is_decided = approved | ~present[1][rows]
    status = np.select(
        [np.isin(final, FINAL) & is_decided, is_untold[rows], delivered, shipped, approved],
        [final, None, "delivered", "shipped", "approved"],
        "created",
    )
    taken = table.take(pa.array(rows))
    for name, is_visible in zip(EVENTS[1:], visible[1:], strict=True):
        column = pa.array(np.where(is_visible, taken.column(name).to_pandas().to_numpy(), None), pa.string())
        taken = taken.set_column(taken.column_names.index(name), name, column)
    taken = taken.set_column(taken.column_names.index("order_status"), "order_status", pa.array(status, pa.string()))
    return taken, known_at, rows


def numbered(table: pa.Table, columns: list[str], within: str) -> list[str | None]:
    """Each line's number (from 1) within its group, by content: the order of the lines does not matter.

    A duplicate gets the number of the line that it repeats. Lines without a group get null.
    """
    import pandas as pd

    frame = table.select(columns).to_pandas()
    as_code = frame.groupby(columns, dropna=False).ngroup()
    first = frame[~as_code.duplicated()]
    position = first.assign(code=as_code[first.index]).sort_values("code").groupby(within).cumcount() + 1
    found = as_code.map(position.set_axis(as_code[position.index])).where(frame[within].notna())
    return [None if pd.isna(value) else str(int(value)) for value in found]
