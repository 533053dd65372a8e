"""The ledger of planted dirt: every late, repeated, corrected or broken row, so that a test can count them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Dirt:
    """One planted flaw. ``file`` is relative to the home, ``line`` counts from 1 (a CSV's header is line 1).

    Rows of the shop database have neither.
    """

    source: str
    entity: str
    kind: str
    key: str
    partition_on: date
    """The day of the file, or of the shop's row."""
    file: str | None = None
    line: int | None = None
    detail: str = ""


BROKEN_KINDS = (
    "wrong_column_count",
    "not_a_number",
    "impossible_date",
    "missing_key",
    "bad_quantity",
    "truncated_json",
    "not_an_object",
    "nan_value",
)
"""Kinds that no loader can take: they belong in quarantine. All other kinds are rows to be taken."""
