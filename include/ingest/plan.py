"""Which sources a business day takes, and whether a day is whole.

A group of sources (demo, olist, ...) is active once it was opened, by ``./emporium run`` or by its
first planned day; the folder of its dump and its span of days are remembered in ``<home>/sources.json``, so
that a backfill from the Airflow UI needs no more than its days.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from include.dates import days, parse_day
from include.ingest.extract import span
from include.ingest.sources import Source, load_source, sources
from include.settings import settings
from include.warehouse.engine import connect

EVERY_NIGHT = "reference"
"""The group that every night takes beside its own: what the rows of any shop are read with, and no network is needed
for (exchange rates, holidays)."""


@dataclass(frozen=True)
class Opened:
    """A group that this home takes: where its files are (None: no dump), its first and last day (None: no end)."""

    group: str
    data: Path | None
    first: date | None
    last: date | None

    def has(self, day: date) -> bool:
        """Whether the group may have rows of the day."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


def _book() -> Path:
    return settings().home / "sources.json"


def opened() -> dict[str, Opened]:
    """The active groups by name."""
    if not _book().exists():
        return {}
    entries = json.loads(_book().read_text())
    return {
        group: Opened(
            group,
            Path(entry["data"]) if entry["data"] else None,
            date.fromisoformat(entry["first"]) if entry["first"] else None,
            date.fromisoformat(entry["last"]) if entry["last"] else None,
        )
        for group, entry in entries.items()
    }


def groups() -> list[str]:
    """Every group that a YAML names."""
    return sorted({source.group for source in sources()})


def open_group(group: str, data: Path | None = None) -> Opened:
    """Make a group active and remember its folder and span; an error says which group, folder or file is missing."""
    known = opened()
    members = sources(group)
    if not members:
        raise ValueError(f"There is no group of sources {group!r}: one of {', '.join(groups())}.")
    folder = data or settings().data or (known[group].data if group in known else None)
    spans = [span(source, folder) for source in members]
    if group == "demo":
        # It is made, not delivered, so that we know where it ends.
        spans = [(parse_day(settings().demo_start), parse_day(settings().demo_end))]
    firsts, lasts = [first for first, _ in spans if first], [last for _, last in spans if last]
    made = Opened(group, folder, min(firsts, default=None), max(lasts, default=None))
    if known.get(group) != made:
        known[group] = made
        text = json.dumps(
            {
                one.group: {
                    field: None if (value := getattr(one, field)) is None else str(value)
                    for field in ("data", "first", "last")
                }
                for one in known.values()
            },
            indent=2,
        )
        beside = _book().with_suffix(f".{os.getpid()}")
        beside.write_text(text)
        beside.replace(_book())
    return made


def taken(as_of: date, group: str | None = None, data: Path | None = None) -> list[tuple[Source, Opened]]:
    """The sources of the named group, or of every active group whose span holds the day; then those of every night."""
    if group:
        active = [open_group(group, data)]
    else:
        active = list(opened().values()) or [open_group(settings().source, data)]
    found = [(source, one) for one in active if one.has(as_of) for source in sources(one.group)]
    if found and all(one.group != EVERY_NIGHT for _, one in found):
        found += [(source, Opened(EVERY_NIGHT, None, None, None)) for source in sources(EVERY_NIGHT)]
    return found


def arguments(as_of: date, first: date, group: str | None, data: Path | None) -> list[str]:
    """One line of arguments per source of the day: ``--source S --as-of D --from D0 [--data FOLDER]``."""
    lines = []
    for source, one in taken(as_of, group, data):
        parts = ["--source", source.source, "--as-of", str(as_of)]
        if first != as_of:
            parts += ["--from", str(first)]
        if one.data:
            parts += ["--data", shlex.quote(str(one.data))]
        lines.append(" ".join(parts))
    return lines


def close(names: list[str], first: date, as_of: date) -> list[str]:
    """Check that every entity of the sources is loaded and counted on every day; returns a line per source.

    ``RuntimeError`` names what is missing.
    """
    lines, missing = [], []
    with connect("loader") as conn:
        for source in map(load_source, names):
            rows = conn.execute(
                "select entity, partition_on, n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit "
                "where source = %s and partition_on between %s and %s",
                (source.source, first, as_of),
            ).fetchall()
            there = {(row[0], row[1]) for row in rows}
            missing += [
                f"{source.source}.{name} of {day}"
                for day in days(first, as_of)
                for name in source.entities
                if (name, day) not in there
            ]
            n_in, n_loaded, n_duplicate, n_quarantined = (sum(row[at] for row in rows) for at in range(2, 6))
            lines.append(
                f"{source.source}: {n_in:,} in = {n_loaded:,} loaded + {n_duplicate:,} duplicate "
                f"+ {n_quarantined:,} quarantined"
            )
    if missing:
        raise RuntimeError(f"{len(missing)} loads are missing: {', '.join(missing[:5])}: run land, the gate and load.")
    return lines
