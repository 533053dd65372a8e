"""The quarantine: rows that broke a rule, and how mended ones come back.

``quarantine.<entity>`` holds what the gate set aside. What a person mended is in ``quarantine._mended``, keyed by the
digest of the row that it stands in for: the gate judges bronze with the mended rows laid over, and load takes those
that keep the rules. A row that the source delivers anew, with another content, is no longer the row that was mended:
it loses its mend, and the gate says so.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from psycopg.types.json import Jsonb

from include.dates import days, end_of, parse_day, start_of
from include.ingest.extract import cleaned, is_deleted, text_of
from include.ingest.pseudonym import mask_emails
from include.ingest.replay import times
from include.ingest.sources import Entity, Source, load_source, sources
from include.ingest.tables import LINE_PARSES
from include.ops import Check
from include.settings import ROOT
from include.warehouse.engine import connect

MENDED = "mended"
"""The rule of a row that is mended and loaded: it stays in the quarantine's books, and in no count of it."""

FITS = "mends_fit_their_rows"
"""The gate's warning about mended rows whose original is not in bronze any more."""

ORIGINAL = "_original"
"""Column of rows with mended ones laid over: what the source sent, null for all others."""

Place = tuple[date, str, int]
"""Business day, file, line."""


def digest(payload: str) -> str:
    """SHA-256 of a row as the quarantine holds it: of its values that are not null, or of a line's text."""
    row = _object(payload)
    if row is not None:
        payload = json.dumps({key: value for key, value in row.items() if value is not None}, sort_keys=True)
    return hashlib.sha256(payload.encode()).hexdigest()


def payload_of(row: Mapping[str, Any]) -> str:
    """A row of strings as the quarantine holds it."""
    return json.dumps(row, ensure_ascii=False)


def payload_columns(names: Iterable[str]) -> list[str]:
    """Of bronze's columns those that are a row's own."""
    return [name for name in names if not name.startswith("_") and name not in ("partition_on", "known_at")]


def broken_columns(entity: Entity, rules: Sequence[str]) -> list[str]:
    """The columns that rules are about: ``<column>_is_...``, ``<column>_matches``, and what a row rule names."""
    own = {rule.name: rule.arguments for rule in entity.rules}
    found: list[str] = []
    for rule in rules:
        if rule in own:
            values = [value for key, value in own[rule].items() if key.startswith("column")]
            found += [one for value in values for one in (value if isinstance(value, list) else [value])]
        elif "_is_" in rule:
            found.append(rule.rpartition("_is_")[0])
        elif rule.endswith("_matches"):
            found.append(rule.removesuffix("_matches"))
    return list(dict.fromkeys(one for one in found if isinstance(one, str)))


def restore(conn: psycopg.Connection, source: str, name: str, first: date, last: date) -> None:
    """Give the mended lines that were no rows their texts back, before a gate judges them again."""
    table = sql.Identifier("quarantine", name)
    rows = conn.execute(
        sql.SQL(
            "select partition_on, file, line, original from quarantine.{} "
            "where source = %s and partition_on between %s and %s and original is not null"
        ).format(sql.Identifier(name)),
        (source, first, last),
    ).fetchall()
    with conn.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                """update {} set rule = %s, rules = %s, columns = '{{}}', payload = original, original = null,
                     is_mended = false
                   where source = %s and partition_on = %s and file = %s and line = %s"""
            ).format(table),
            [(LINE_PARSES, [LINE_PARSES], source, *place) for *place, text in rows if _object(text) is None],
        )


# --- mended rows, laid over bronze -------------------------------------------------------------------


@dataclass
class Overlay:
    """The mended rows of an entity's days."""

    mends: dict[Place, tuple[str, dict[str, str | None]]]
    """Digest of the original, and what stands in for it."""
    texts: dict[Place, str]
    """Lines that are no rows, which bronze does not hold."""
    used: set[Place]

    @classmethod
    def of(cls, conn: psycopg.Connection, source: str, name: str, first: date, last: date) -> Overlay:
        """As the database has it."""
        mends = {
            (day, file, line): (sha256, payload)
            for day, file, line, sha256, payload in conn.execute(
                "select partition_on, file, line, original_sha256, payload from quarantine._mended "
                "where source = %s and entity = %s and partition_on between %s and %s",
                (source, name, first, last),
            )
        }
        texts = {}
        if mends:
            rows = conn.execute(
                sql.SQL(
                    "select partition_on, file, line, coalesce(original, payload) from quarantine.{} "
                    "where source = %s and partition_on between %s and %s"
                ).format(sql.Identifier(name)),
                (source, first, last),
            )
            texts = {(day, file, line): text for day, file, line, text in rows if (day, file, line) in mends}
        return cls(mends, texts, set())

    @property
    def files(self) -> list[str]:
        """The files of mended rows."""
        return sorted({file for _, file, _ in self.mends})

    def laid(self, entity: Entity, rows: pa.Table) -> pa.Table:
        """Bronze ``rows`` with mended ones in place of their originals, and ``ORIGINAL``; mended rows come last."""
        rows = rows.append_column(ORIGINAL, pa.nulls(rows.num_rows, pa.string()))
        if not self.mends:
            return rows
        at = _positions(rows, self.mends)
        stand_ins, replaced = [], []
        for position, row in zip(at, rows.take(at).to_pylist(), strict=True):
            place = (row["partition_on"], row["_file"], row["_line"])
            original = self.texts.get(place) if row["_error"] else payload_of(_own(row))
            sha256, payload = self.mends[place]
            if original is not None and digest(original) == sha256:
                self.used.add(place)
                stand_ins.append(stand_in(entity, row, payload) | {ORIGINAL: original})
                replaced.append(position)
        return _replaced(rows, replaced, stand_ins)

    def check(self, target: str, day: date) -> Check | None:
        """Whether every mend of a day found the row that it was made for, after all rows were laid over."""
        places = [place for place in self.mends if place[0] == day]
        if not places:
            return None
        lost = sorted(f"{file}:{line}" for _, file, line in places if (day, file, line) not in self.used)
        observed = {"first": lost[:5]} if lost else {}
        return Check("raw", target, day, FITS, "warning", not lost, len(places), len(lost), observed)


def stand_in(entity: Entity, row: dict[str, Any], payload: Mapping[str, str | None]) -> dict[str, Any]:
    """A bronze row with a mended payload: what it says of itself (when it became known, deleted) is read anew."""
    made = row | {name: payload[name] for name in payload if name in row} | {"_error": None}
    if entity.cursor and made.get(entity.cursor) != row.get(entity.cursor):
        said = times(pa.array([made[entity.cursor]], pa.string()))[0]
        day = row["partition_on"]
        if start_of(day) <= _moment(said, start_of(day)) < end_of(day):
            made["known_at"] = _moment(said, row["known_at"])
    if entity.deletes and entity.deletes.column:
        made["_deleted"] = is_deleted(pa.array([made[entity.deletes.column]], pa.string()))[0].as_py()
    return made


def with_mended(entity: Entity, rows: pa.Table, payloads: Mapping[Place, str]) -> pa.Table:
    """Bronze ``rows`` with the mended payloads (JSON, as the quarantine holds them) of their places: for load."""
    if not payloads:
        return rows
    at = _positions(rows, payloads)
    made = [
        stand_in(entity, row, json.loads(payloads[row["partition_on"], row["_file"], row["_line"]]))
        for row in rows.take(at).to_pylist()
    ]
    return _replaced(rows, at, made)


def _positions(rows: pa.Table, places: Iterable[Place]) -> list[int]:
    wanted = set(places)
    maybe = pc.and_(
        pc.is_in(rows["_file"], pa.array(sorted({file for _, file, _ in wanted}), pa.string())),
        pc.is_in(rows["_line"], pa.array(sorted({line for _, _, line in wanted}), pa.int64())),
    )
    at = np.flatnonzero(maybe.to_numpy())
    near = rows.select(["partition_on", "_file", "_line"]).take(pa.array(at)).to_pylist()
    return [int(one) for one, row in zip(at, near, strict=True) if tuple(row.values()) in wanted]


def _replaced(rows: pa.Table, at: Sequence[int], made: list[dict[str, Any]]) -> pa.Table:
    if not made:
        return rows
    stays = np.ones(rows.num_rows, bool)
    stays[list(at)] = False
    return pa.concat_tables([rows.filter(pa.array(stays)), pa.Table.from_pylist(made, schema=rows.schema)])


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in payload_columns(row)}


def _moment(said: np.datetime64, otherwise: Any) -> Any:
    if np.isnat(said):
        return otherwise
    return pa.array([said.astype("datetime64[us]")], pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))[0].as_py()


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


# --- the commands ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """Which rows of the quarantine are meant; None means any."""

    source: str | None = None
    entity: str | None = None
    as_of: date | None = None
    rule: str | None = None

    def tables(self) -> Iterator[tuple[Source, str]]:
        """The entities; ``ValueError`` names the sources or entities there are."""
        chosen = [load_source(self.source)] if self.source else sources()
        found = [(source, name) for source in chosen for name in source.entities if self.entity in (None, name)]
        if not found:
            known = ", ".join(sorted({name for source in chosen for name in source.entities}))
            raise ValueError(f"There is no entity {self.entity!r}; entities are: {known}.")
        yield from found


@dataclass(frozen=True)
class Aside:
    """A row of the quarantine."""

    source: str
    entity: str
    partition_on: date
    file: str
    line: int
    rules: list[str]
    columns: list[str]
    payload: str
    original: str | None
    is_mended: bool

    def as_json(self) -> str:
        """A line for a person to mend the payload of, and for ``replay`` to read."""
        return payload_of(
            {
                "source": self.source,
                "entity": self.entity,
                "partition_on": str(self.partition_on),
                "file": self.file,
                "line": self.line,
                "rules": self.rules,
                "columns": self.columns,
                "original_sha256": digest(self.original or self.payload),
                "payload": _object(self.payload) or self.payload,
            }
        )


def counts(wanted: Wanted) -> list[tuple[str, str, date, str, int]]:
    """(source, entity, day, rule, rows), newest day first; a row counts for the first rule that it breaks."""
    found: list[tuple[str, str, date, str, int]] = []
    with connect("loader") as conn:
        for source, name in wanted.tables():
            found += conn.execute(
                sql.SQL(
                    """select source, {}, partition_on, rule, count(*) from quarantine.{}
                       where source = %(source)s and (%(day)s::date is null or partition_on = %(day)s)
                         and (%(rule)s::text is null or %(rule)s = any(rules) or %(rule)s = rule)
                       group by 1, 2, 3, 4"""
                ).format(sql.Literal(name), sql.Identifier(name)),
                {"source": source.source, "day": wanted.as_of, "rule": wanted.rule},
            ).fetchall()
    return sorted(found, key=lambda one: (-one[2].toordinal(), *one[:2], one[3]))


def lost_mends(wanted: Wanted) -> list[str]:
    """A sentence for each day on which mended rows no longer fit: the source delivered the originals anew."""
    with connect("loader") as conn:
        rows = conn.execute(
            """select target, as_of, n_failed, n_checked, observed -> 'first' from ops.quality_result
               where gate = 'raw' and rule = %s and not is_passed order by as_of desc, target""",
            (FITS,),
        ).fetchall()
    targets = {f"{source.source}.{name}" for source, name in wanted.tables()}
    return [
        f"{target} of {day}: {n_lost} of {n} mended rows fit no more, since the source delivered other rows there: "
        f"{', '.join(places)}. Look at them and mend them anew where they need it."
        for target, day, n_lost, n, places in rows
        if target in targets and wanted.as_of in (None, day)
    ]


def rows_aside(wanted: Wanted, limit: int | None = None) -> list[Aside]:
    """Rows in the quarantine, newest day first, then by file and line."""
    found: list[Aside] = []
    with connect("loader") as conn:
        for source, name in wanted.tables():
            rows = conn.execute(
                sql.SQL(
                    """select partition_on, file, line, rules, columns, coalesce(payload, ''), original, is_mended
                       from quarantine.{}
                       where source = %(source)s and (%(day)s::date is null or partition_on = %(day)s)
                         and (%(rule)s::text is null or %(rule)s = any(rules) or %(rule)s = rule)
                       order by partition_on desc, file, line limit %(limit)s"""
                ).format(sql.Identifier(name)),
                {"source": source.source, "day": wanted.as_of, "rule": wanted.rule, "limit": limit},
            ).fetchall()
            entity = source.entities[name]
            found += [
                Aside(source.source, name, day, file, line, rules, columns or broken_columns(entity, rules), *rest)
                for day, file, line, rules, columns, *rest in rows
            ]
    found.sort(key=lambda one: (-one.partition_on.toordinal(), one.source, one.entity, one.file, one.line))
    return found[:limit]


@dataclass(frozen=True)
class Stored:
    """What a file of mended rows brought."""

    n_mended: int
    n_unchanged: int
    days: dict[str, list[date]]
    """Source -> the days to judge and load again."""


def store(lines: Iterable[str]) -> Stored:
    """Keep mended rows (JSON lines as ``Aside.as_json`` makes them, payloads edited), all or none.

    ``ValueError`` names the line and what is wrong with it. A line whose payload is as the quarantine holds it is
    passed over. Persons are pseudonymised before anything is written.
    """
    n_unchanged = 0
    made: list[tuple] = []
    touched: dict[str, set[date]] = {}
    with connect("loader") as conn:
        for number, text in enumerate(lines, 1):
            if not text.strip():
                continue
            try:
                mended = _mended(conn, text)
            except ValueError as error:
                raise ValueError(f"Line {number}: {error}") from error
            if mended is None:
                n_unchanged += 1
                continue
            made.append(mended)
            touched.setdefault(mended[0], set()).add(mended[2])
        with conn.cursor() as cursor:
            cursor.executemany(
                """insert into quarantine._mended
                     (source, entity, partition_on, file, line, original_sha256, payload, mended_by)
                   values (%s, %s, %s, %s, %s, %s, %s, %s)
                   on conflict (source, entity, partition_on, file, line) do update
                   set original_sha256 = excluded.original_sha256, payload = excluded.payload,
                       mended_by = excluded.mended_by, mended_at = now()""",
                made,
            )
    return Stored(len(made), n_unchanged, {source: sorted(found) for source, found in touched.items()})


def _mended(conn: psycopg.Connection, text: str) -> tuple | None:
    record = _object(text)
    if record is None:
        raise ValueError("it is not a JSON object")
    if lacking := [one for one in ("source", "entity", "partition_on", "file", "line", "payload") if one not in record]:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    source = load_source(str(record["source"]))
    name = str(record["entity"])
    if name not in source.entities:
        raise ValueError(f"{source.source} has no entity {name!r}")
    entity = source.entities[name]
    day, file, line = parse_day(str(record["partition_on"])), str(record["file"]), int(record["line"])
    where = f"{source.source}.{name} of {day}, {file}:{line}"
    row = conn.execute(
        sql.SQL(
            "select payload, original from quarantine.{} "
            "where source = %s and partition_on = %s and file = %s and line = %s"
        ).format(sql.Identifier(name)),
        (source.source, day, file, line),
    ).fetchone()
    if row is None:
        raise ValueError(f"{where} is not in the quarantine")
    current, original = row[0] or "", row[1] or row[0] or ""
    if record.get("original_sha256", digest(original)) != digest(original):
        raise ValueError(f"{where} is not the row that was shown: the source delivered it anew; show it again")
    payload = record["payload"]
    was = _object(current)
    if payload == (current if was is None else was):
        return None
    if not isinstance(payload, dict):
        raise ValueError(f"{where}: `payload` must be an object with the columns {', '.join(entity.columns)}")
    may = {*entity.columns, *(was or {})}
    if unknown := sorted(set(payload) - may):
        raise ValueError(f"{where}: there is no column {', '.join(unknown)}; columns are: {', '.join(entity.columns)}")
    if was is None and (lacking := [one for one in entity.columns if one not in payload]):
        raise ValueError(
            f"{where} was no row, so give all its columns (null where there is none): {', '.join(lacking)}"
        )
    values = {key: _value(source, entity, key, value, was or {}) for key, value in {**(was or {}), **payload}.items()}
    return (source.source, name, day, file, line, digest(original), Jsonb(values), _who())


def _value(source: Source, entity: Entity, name: str, value: Any, was: Mapping[str, Any]) -> str | None:
    """A mended value as extraction would have made it; one that was left alone is that already."""
    text = text_of(value)
    if text is None:
        return None
    if "\0" in text:
        raise ValueError(f"{name} holds a NUL, which no database takes")
    if name in was and text == was[name]:
        return text
    values = pa.array([text], pa.string())
    column = entity.columns.get(name)
    return (cleaned(source, column, values) if column else mask_emails(values))[0].as_py()


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def commands(source: Source, of_days: Sequence[date]) -> list[list[str]]:
    """The command lines that judge and load days again, neighbouring days together."""
    found = []
    for first, last in _ranges(of_days):
        line = ["--source", source.source, "--as-of", str(last)] + (["--from", str(first)] if first < last else [])
        found.append(["expectations.raw", *line])
        if source.raw_entities:
            found.append(["include.ingest", "load", *line])
        if len(source.raw_entities) < len(source.entities):
            found.append(["spark_jobs.sessions", *line])
    return found


def _ranges(of_days: Sequence[date]) -> Iterator[tuple[date, date]]:
    first = last = None
    for day in sorted(set(of_days)):
        if last is not None and list(days(last, day))[1:] != [day]:
            yield first or last, last
            first = None
        first, last = first or day, day
    if last is not None:
        yield first or last, last


def rerun(source: Source, of_days: Sequence[date]) -> Iterator[str]:
    """Run ``commands`` and yield each as it starts. ``RuntimeError`` when one fails; what was mended stays kept."""
    for command in commands(source, of_days):
        shown = " ".join(["python -m", *command])
        yield shown
        # Processes of their own: the gate and Spark are above this layer.
        if subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode:
            raise RuntimeError(f"It stopped at: {shown}. What was mended is kept; see `./emporium quarantine list`.")
