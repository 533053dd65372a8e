"""What columns seem to be, from some of their values: for sources that do not say it themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

from include.ingest.connectors.base import Found
from include.ingest.types import INT32, PATTERNS

N_SAMPLES = 3
PART_NAME = re.compile(r"(^|_)(line|item|position|pos|seq|sequence|row)$", re.IGNORECASE)
KEY_NAME = re.compile(r"(^|_)(id|no|nr|number|code|sku|key|uuid|guid)$", re.IGNORECASE)


def infer(columns: Mapping[str, Sequence[str | None]]) -> list[Found]:
    """A column's type is the narrowest that reads all its values; null or empty is no value.

    The key is the first column, or pair of columns, that is always there, never repeats and is named like one. All
    other columns count as nullable: what was there so far need not be there tomorrow.
    """
    key = _key(columns)
    found = []
    for name, values in columns.items():
        there = [value for value in values if value]
        samples = tuple(dict.fromkeys(there))[:N_SAMPLES]
        found.append(Found(name, _type(there), is_nullable=name not in key, is_key=name in key, samples=samples))
    return found


def _key(columns: Mapping[str, Sequence[str | None]]) -> tuple[str, ...]:
    full = {name: values for name, values in columns.items() if values and all(values)}
    single = [name for name in full if KEY_NAME.search(snake(name))]
    parts = [name for name in full if name in single or PART_NAME.search(snake(name))]
    for names in [*combinations(single, 1), *combinations(parts, 2)]:
        rows = list(zip(*(full[name] for name in names), strict=True))
        if len(set(rows)) == len(rows):
            return names
    return ()


def _type(values: Sequence[str]) -> str:
    if not values:
        return "text"
    # 007 is a code and not the number 7.
    is_code = any(re.match(r"-?0\d", value) for value in values)
    fits = {kind for kind, pattern in PATTERNS.items() if all(re.search(pattern, value) for value in values)}
    if "bigint" in fits and not is_code:
        return "integer" if "integer" in fits and all(-INT32 <= int(value) < INT32 for value in values) else "bigint"
    if "numeric(18,4)" in fits and not is_code:
        return "numeric(18,4)"
    for kind in ("date", "timestamptz"):
        if kind in fits:
            return kind
    if {value.lower() for value in values} <= {"true", "false"}:
        return "boolean"
    return "text"


def snake(name: str) -> str:
    """A source's name as a raw column's: ``InvoiceNo`` -> ``invoice_no``; at most 50 characters."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    plain = re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")
    return (plain if re.match(r"[a-z]", plain) else f"c_{plain}".rstrip("_"))[:50]
