"""Schema drift: what becomes of a column that the source has and the YAML does not name.

The first landing that sees an entity's columns is the baseline: what it has beyond the YAML is known and not read. A
column that appears later does what the entity's ``schema_policy`` says, from the day on which it was first seen; so a
rerun of an old day decides as the first run did. Naming the column in the YAML, or under ``ignore:``, ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from include.ingest.sources import RESERVED, Entity, Source, sources
from include.ops import Check

RULE = "columns_are_known"
"""The gate's check: critical where the batch stops, a warning where it goes on."""


@dataclass(frozen=True)
class Seen:
    """When a column that the YAML does not name was first seen; no policy: it was there from the first landing."""

    first_seen_on: date
    policy: str | None


@dataclass(frozen=True)
class Drift:
    """What the unnamed columns of an entity's day do, by their names in the source."""

    stops: tuple[str, ...] = ()
    evolves: tuple[str, ...] = ()
    quarantines: tuple[str, ...] = ()
    is_news: bool = False
    """Whether the day is the first one of any of them."""


def raw_name(column: str) -> str:
    """What bronze, raw and staging call an unnamed column: lower case, digits and underscores, at most 50."""
    name = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")[:50].strip("_")
    return name if name and not name[0].isdigit() else f"column_{name}".rstrip("_")


def flag(column: str) -> str:
    """What bronze calls the column that says which rows had a value in one that is set aside."""
    return f"has_{raw_name(column)}"


def held(drift: Drift) -> list[str]:
    """The columns that bronze has because of a day's unnamed columns."""
    return [*map(raw_name, drift.evolves), *map(flag, drift.quarantines)]


def is_unknown(entity: Entity, column: str) -> bool:
    """Whether the YAML, as it is now, neither names nor ignores a column of the source."""
    return column not in entity.source_columns.values() and column not in entity.ignore


def decide(entity: Entity, unnamed: Iterable[str], known: Mapping[str, Seen], day: date) -> Drift:
    """What becomes of the columns ``unnamed`` that the source had on ``day``. Pure.

    A column whose name in raw is taken, or is that of another, stops the batch whatever the policy: it needs a name.
    """
    new = []
    for column in sorted(set(unnamed)):
        seen = known.get(column, Seen(day, entity.schema_policy))
        if is_unknown(entity, column) and seen.policy is not None and seen.first_seen_on <= day:
            new.append(column)
    is_news = any(known.get(column, Seen(day, None)).first_seen_on == day for column in new)
    if entity.schema_policy == "freeze":
        return Drift(stops=tuple(new), is_news=is_news)
    names = [raw_name(column) for column in new]
    unusable = {
        column
        for column, name in zip(new, names, strict=True)
        if {name, flag(column)} & {*entity.columns, *RESERVED} or names.count(name) > 1
    }
    usable = tuple(column for column in new if column not in unusable)
    stops = tuple(column for column in new if column in unusable)
    if entity.schema_policy == "evolve":
        return Drift(stops=stops, evolves=usable, is_news=is_news)
    return Drift(stops=stops, quarantines=usable, is_news=is_news)


def check(target: str, day: date, drift: Drift, entity: Entity, n_rows: int) -> Check | None:
    """The verdict on a day's columns; None where there is nothing to say."""
    if drift.stops:
        return Check(
            "raw", target, day, RULE, "critical", False, n_rows, len(drift.stops),
            {"columns": list(drift.stops), "do": remedy(target, drift.stops)},
        )  # fmt: skip
    if not (drift.evolves or drift.quarantines):
        return None
    seen = [*drift.evolves, *drift.quarantines]
    # It warns on the day the column appears, not every night thereafter; rows set aside have a rule of their own.
    return Check(
        "raw", target, day, RULE, "warning", not drift.is_news, n_rows, len(seen) if drift.is_news else 0,
        {"columns": seen, "policy": entity.schema_policy},
    )  # fmt: skip


def remedy(target: str, columns: Sequence[str]) -> str:
    """What a person does about columns that stop a batch."""
    source, _, entity = target.partition(".")
    named = ", ".join(columns)
    return (
        f"in include/sources/{source}.yaml name {named} under entities.{entity}.columns or list it under `ignore:`, "
        f"then land, judge and load the day again"
    )


def message(check: Check) -> str:
    """Why a batch stopped, in one line."""
    return (
        f"{check.target} of {check.as_of}: the source has a column that the YAML does not know: "
        f"{', '.join(check.observed['columns'])}; nothing of the source is loaded: {check.observed['do']}"
    )


def unknown_rows(rows: pa.Table, drifts: Mapping[date, Drift]) -> dict[str, np.ndarray]:
    """Rule -> positions of the rows that have a value in a column which the day's policy sets aside."""
    found: dict[str, np.ndarray] = {}
    day_of = rows["partition_on"].to_numpy().astype("datetime64[D]")
    for column in sorted({one for drift in drifts.values() for one in drift.quarantines}):
        if flag(column) not in rows.column_names:
            continue
        of = np.array([day for day, drift in drifts.items() if column in drift.quarantines], "datetime64[D]")
        has_value = pc.is_valid(rows[flag(column)]).to_numpy()
        found[f"{raw_name(column)}_is_unknown"] = np.flatnonzero(has_value & np.isin(day_of, of))
    return found


def widened(entity: Entity, rows: pa.Table, extra: pa.Table | None, known: Mapping[str, Seen], last: date) -> pa.Table:
    """``rows`` with what bronze keeps of unnamed columns, from the day on which each was first seen.

    That is the values of one that evolved; of one that is set aside only which rows had a value, since it may be about
    persons and nobody has said so.
    """
    if extra is None:
        return rows
    drift = decide(entity, known, known, last)
    yes, no = pa.scalar("yes"), pa.scalar(None, pa.string())
    for column in (*drift.evolves, *drift.quarantines):
        if column not in extra.column_names:
            continue
        since = pc.greater_equal(rows["partition_on"], pa.scalar(known[column].first_seen_on, pa.date32()))
        if column in drift.evolves:
            rows = rows.append_column(raw_name(column), pc.if_else(since, extra[column], no))
        else:
            there = pc.and_(since, pc.is_valid(extra[column]))
            rows = rows.append_column(flag(column), pc.if_else(there, yes, no))
    return rows


# --- what is remembered --------------------------------------------------------------------------


def known(conn: psycopg.Connection, source: str, name: str) -> dict[str, Seen]:
    """Column -> when it was first seen, for an entity's columns that a YAML did not name."""
    return {
        column: Seen(first_seen_on, policy)
        for column, first_seen_on, policy in conn.execute(
            "select column_name, first_seen_on, policy from ops.source_column where source = %s and entity = %s",
            (source, name),
        )
    }


def note(
    conn: psycopg.Connection,
    source: Source,
    name: str,
    seen_on: Mapping[str, date] | None,
    last: date | None = None,
) -> dict[str, Seen]:
    """Remember the unnamed columns of a landing (column -> the first of its days that has it), as ``known`` has them.

    ``seen_on`` is None where a landing saw no columns at all. ``last`` is its last day: a column is new from the
    newest landed day on, or the day after it where the landing does not reach that far, since many sources show an old
    day with the columns of today. Call it before ``mark``, in the same transaction.
    """
    entity = source.entities[name]
    (newest,) = conn.execute(
        sql.SQL("select max(partition_on) from {} where entity = %s").format(_landed(source)), (name,)
    ).fetchone() or (None,)
    if last is not None and newest is not None:
        since = newest if newest <= last else newest + timedelta(days=1)
        seen_on = {column: max(day, since) for column, day in (seen_on or {}).items()}
    is_first = not conn.execute(
        sql.SQL("select 1 from {} where entity = %s and unnamed is not null limit 1").format(_landed(source)), (name,)
    ).fetchone()
    with conn.cursor() as cursor:
        cursor.executemany(
            """insert into ops.source_column (source, entity, column_name, first_seen_on, policy)
               values (%s, %s, %s, %s, %s)
               on conflict (source, entity, column_name) do update set policy = excluded.policy
               where source_column.policy is not null and excluded.policy is not null""",
            [
                (source.source, name, column, day, None if is_first else entity.schema_policy)
                for column, day in (seen_on or {}).items()
            ],
        )
    return known(conn, source.source, name)


def mark(
    conn: psycopg.Connection,
    source: Source,
    name: str,
    seen_on: Mapping[str, date] | None,
    landed_days: Sequence[date],
) -> None:
    """Say in ``_landed`` which unnamed columns the days had."""
    if seen_on is None or not landed_days:
        return
    for since in sorted({landed_days[0], *seen_on.values()}):
        columns = sorted(column for column, day in seen_on.items() if day <= since)
        conn.execute(
            sql.SQL(
                "update {} set unnamed = %s where entity = %s and partition_on = any(%s) and partition_on >= %s"
            ).format(_landed(source)),
            (columns, name, list(landed_days), since),
        )


def of_days(conn: psycopg.Connection, source: Source, name: str, first: date, last: date) -> dict[date, Drift]:
    """What the unnamed columns of each landed day do, by the YAML as it is now; days without any are absent."""
    seen = known(conn, source.source, name)
    rows = conn.execute(
        sql.SQL(
            "select partition_on, unnamed from {} where entity = %s and partition_on between %s and %s "
            "and unnamed <> '{{}}'"
        ).format(_landed(source)),
        (name, first, last),
    ).fetchall()
    found = {day: decide(source.entities[name], unnamed, seen, day) for day, unnamed in rows}
    return {day: drift for day, drift in found.items() if drift.stops or drift.evolves or drift.quarantines}


def evolved(conn: psycopg.Connection, source: Source, name: str, last: date) -> list[str]:
    """Raw names of the columns that an entity gained by evolution, first seen by ``last``; each is text."""
    entity = source.entities[name]
    if entity.schema_policy != "evolve":
        return []
    seen = known(conn, source.source, name)
    return [raw_name(column) for column in decide(entity, seen, seen, last).evolves]


def staged(conn: psycopg.Connection) -> dict[str, dict[str, list[str]]]:
    """Source -> entity -> evolved columns that its raw table has by now: what staging shows beside the YAML's."""
    there = {
        tuple(row)
        for row in conn.execute(
            """select n.nspname, c.relname, a.attname from pg_attribute a
               join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
               where n.nspname like 'raw\\_%' and a.attnum > 0 and not a.attisdropped"""
        )
    }
    gained = {
        (source, entity)
        for source, entity in conn.execute(
            "select distinct source, entity from ops.source_column where policy = 'evolve'"
        )
    }
    found: dict[str, dict[str, list[str]]] = {}
    for source in sources():
        for name in source.raw_entities:
            if (source.source, name) in gained:
                columns = evolved(conn, source, name, date.max)
                if columns := [one for one in columns if (source.raw_schema, name, one) in there]:
                    found.setdefault(source.source, {})[name] = columns
    return found


def _landed(source: Source) -> sql.Identifier:
    return sql.Identifier(source.raw_schema, "_landed")
