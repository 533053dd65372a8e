"""Daily demand series as they were known at a cutoff, and the naive rules on them.

Input: the feature view demand_history, rows (marketplace, product_id, sold_on, known_on, units_delta, ...).
What was known at cutoff c is the sum of the deltas with ``known_on <= c``; a later correction is another
row and does not reach back. Days are int64 days since 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from ml_tasks.lifecycle.evaluate import QUANTILES
from ml_tasks.lifecycle.usecase import Sample

ACTIVE_DAYS = 91
"""An entity is eligible when it sold within this many days up to the cutoff, ..."""
MIN_SALE_DAYS = 3
"""... and on at least this many days of the look-back."""
LOOKBACK_DAYS = 168
"""No feature looks further back, so that the earliest training cutoff sees as much as the scoring cutoff."""
WEEKLY_CUTOFFS = 26
MIN_HISTORY_DAYS = 56

P = ("p10", "p50", "p90")


def day_number(day: date) -> int:
    return int(np.datetime64(day, "D").astype("int64"))


def day_of(number: int) -> date:
    return np.datetime64(int(number), "D").item()


def day_numbers(column: pd.Series) -> np.ndarray:
    return column.to_numpy().astype("datetime64[D]").astype("int64")


@dataclass(frozen=True)
class Demand:
    """Deltas of all entities. ``entities`` is sorted by its keys; ``entity`` indexes into it."""

    entities: pd.DataFrame
    entity: np.ndarray
    sold: np.ndarray
    known: np.ndarray
    units: np.ndarray
    revenue: np.ndarray

    @property
    def first_day(self) -> int:
        return int(self.sold.min()) if len(self.sold) else 0

    def window(self, ids: np.ndarray, first: int, last: int, known: int, what: str = "units") -> np.ndarray:
        """Units (or revenue) per entity and day of [first, last] as known at ``known``: (len(ids), days), >= 0."""
        place = np.full(len(self.entities), -1)
        place[ids] = np.arange(len(ids))
        n_days = last - first + 1
        row = place[self.entity]
        mask = (row >= 0) & (self.sold >= first) & (self.sold <= last) & (self.known <= known)
        flat = row[mask] * n_days + (self.sold[mask] - first)
        sums = np.bincount(flat, weights=getattr(self, what)[mask], minlength=len(ids) * n_days)
        return np.maximum(sums.reshape(len(ids), n_days), 0.0)

    def eligible(self, cutoff: int, min_sale_days: int = MIN_SALE_DAYS) -> np.ndarray:
        """Entities to forecast as of ``cutoff``, as known at it: positions in ``entities``, ascending."""
        first = cutoff - LOOKBACK_DAYS + 1
        mask = (self.sold >= first) & (self.sold <= cutoff) & (self.known <= cutoff)
        day = self.entity[mask] * LOOKBACK_DAYS + (self.sold[mask] - first)
        cells, inverse = np.unique(day, return_inverse=True)
        sums = np.bincount(inverse, weights=self.units[mask], minlength=len(cells))
        cells = cells[sums > 1e-9]
        owner, offset = cells // LOOKBACK_DAYS, cells % LOOKBACK_DAYS
        n_days = np.bincount(owner, minlength=len(self.entities))
        n_recent = np.bincount(owner[offset >= LOOKBACK_DAYS - ACTIVE_DAYS], minlength=len(self.entities))
        return np.flatnonzero((n_days >= min_sale_days) & (n_recent >= 1))


def demand(history: pd.DataFrame, keys: Sequence[str]) -> Demand:
    """Deltas per entity; ``keys`` name the entity (product or category). Rows are put into a fixed order first."""
    history = history.sort_values([*keys, "sold_on", "known_on"], kind="stable", ignore_index=True)
    grouped = history.groupby(list(keys), sort=True)
    entities = grouped.size().index.to_frame(index=False)
    return Demand(
        entities=entities,
        entity=grouped.ngroup().to_numpy(),
        sold=day_numbers(history["sold_on"]),
        known=day_numbers(history["known_on"]),
        units=history["units_delta"].to_numpy(float),
        revenue=history["revenue_delta"].to_numpy(float),
    )


def weekly_cutoffs(last: int, first_day: int, n: int = WEEKLY_CUTOFFS) -> list[int]:
    """Up to ``n`` cutoffs a week apart ending at ``last``, oldest first, each with eight weeks of history."""
    return [c for c in (last - 7 * i for i in range(n)) if c - first_day + 1 >= MIN_HISTORY_DAYS][::-1]


LEVELS = np.array([0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500])
"""Units a day that part series into groups of like size: errors of a slow seller say nothing about a fast one."""


def naive_quantiles(sample: Sample, point: str) -> pd.DataFrame:
    """p10, p50, p90 = the naive forecast in column ``point`` + quantiles of its past errors at like levels.

    Errors come from ``sample.past`` alone. A level with fewer than 30 of them takes those of all levels;
    without any past a Poisson-like spread stands in.
    """
    rows = sample.rows
    forecast = rows[point].to_numpy(float)
    group = np.digitize(rows["level"].to_numpy(float), LEVELS)
    out = np.empty((len(rows), len(QUANTILES)))
    if len(sample.past) == 0:
        spread = 1.2816 * np.sqrt(forecast)
        out[:] = np.column_stack([forecast - spread, forecast, forecast + spread])
    else:
        errors = sample.past["label"].to_numpy(float) - sample.past[point].to_numpy(float)
        past_group = np.digitize(sample.past["level"].to_numpy(float), LEVELS)
        pooled = np.quantile(errors, QUANTILES)
        for one in np.unique(group):
            own = errors[past_group == one]
            out[group == one] = np.quantile(own, QUANTILES) if len(own) >= 30 else pooled
        out += forecast[:, None]
    return quantile_frame(out, rows.index)


def seasonal_naive(sample: Sample) -> pd.DataFrame:
    """The same weekday of the last week before the cutoff."""
    return naive_quantiles(sample, "same_weekday_last")


def moving_average_28(sample: Sample) -> pd.DataFrame:
    """The mean of the 28 days before the cutoff."""
    return naive_quantiles(sample, "mean_28")


def quantile_frame(values: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """(n, 3) as p10 <= p50 <= p90, never negative."""
    return pd.DataFrame(np.sort(np.maximum(values, 0.0), axis=1), columns=list(P), index=index)
