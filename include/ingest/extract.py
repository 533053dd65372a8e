"""From a connector's batches to bronze: named, in UTC, persons already pseudonymised, each row in its business day."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from include.ingest import bronze
from include.ingest.connectors import Batch, Connector, SourceError, connector
from include.ingest.files import lacks
from include.ingest.pseudonym import mask_emails, pseudonyms
from include.ingest.replay import times
from include.ingest.sources import Column, Entity, Source
from include.ingest.types import in_utc

DAY = np.timedelta64(1, "D")
TICK = np.timedelta64(1, "us")
NOT_DELETED = ["", "0", "f", "false", "n", "no"]


@dataclass(frozen=True)
class Broken:
    """A line that is no row. Its text goes to the quarantine, never to the lake."""

    partition_on: date
    file: str
    line: int
    error: str
    text: str


@dataclass(frozen=True)
class Extract:
    """An entity's rows as bronze holds them, and the text of its broken lines."""

    entity: str
    rows: pa.Table
    """In ``bronze.schema(entity)``."""
    broken: list[Broken]
    unnamed: tuple[str, ...] = ()
    """Columns that the source has and the YAML neither names nor ignores."""
    seen_on: dict[str, date] | None = None
    """Each of them with the first day whose rows came with it; None where no columns were seen at all."""
    extra: pa.Table | None = None
    """Values of unnamed columns where the connector read them: strings, e-mails masked, row for row with ``rows``."""


def extract(source: Source, first: date, last: date, data: Path | None = None) -> Iterator[Extract]:
    """Each entity's rows that became known on ``first``..``last``.

    ``data`` is the folder of a history dump (default ``EMPORIUM_DATA``). ``FileNotFoundError`` and ``ValueError``
    say in one sentence which folder, file or column is missing.
    """
    with connector(source, data) as reader:
        yield from extracts(reader, first, last)


def extracts(reader: Connector, first: date, last: date) -> Iterator[Extract]:
    """As ``extract``, from an opened connector; an entity comes once, whatever number of batches it had."""
    source = reader.source
    shaped: dict[str, list[_Piece]] = {name: [] for name in source.entities}
    for batch in reader.read(first, last):
        if batch.entity not in shaped:
            raise SourceError(
                f"{source.source}: {reader.name} yielded {batch.entity!r}, which is no entity of the YAML."
            )
        shaped[batch.entity].append(_shaped(source, batch, first, last))
    for name, pieces in shaped.items():
        yield _together(name, source.entities[name], pieces)


def span(source: Source, data: Path | None = None) -> tuple[date | None, date | None]:
    """The first and the last business day on which the source can have rows; None where only time will tell."""
    with connector(source, data) as reader:
        return reader.span()


@dataclass(frozen=True)
class _Piece:
    """A batch's rows of the days, as ``Extract`` has them but for the numbers of lines."""

    rows: pa.Table
    texts: dict[int, str]
    """Position in ``rows`` -> the text of a line that is no row."""
    unnamed: tuple[str, ...]
    seen_on: dict[str, date] | None
    extra: pa.Table | None


def _shaped(source: Source, batch: Batch, first: date, last: date) -> _Piece:
    entity = source.entities[batch.entity]
    table = batch.rows if isinstance(batch.rows, pa.Table) else _strings(batch.rows)
    n = table.num_rows
    named = entity.source_columns
    is_listed = not isinstance(batch.rows, pa.Table)
    columns: dict[str, Any] = {}
    for name, column in entity.columns.items():
        if named[name] in table.column_names:
            columns[name] = cleaned(source, column, table.column(named[name]).cast(pa.string()).combine_chunks())
        elif column.optional or is_listed:
            columns[name] = pa.nulls(n, pa.string())
        else:
            there = batch.columns or table.column_names
            missing = [of for one, of in named.items() if of not in there and not entity.columns[one].optional]
            raise SourceError(
                f"{source.source}.{batch.entity}: {_first(batch.file)} {lacks(missing, there, named.values())} "
                "If this version of the source may lack it, say `optional: true`."
            )
    known_at, partition_on = _times(entity, batch, columns, n, last)
    files = [batch.file] * n if isinstance(batch.file, str) else batch.file
    columns["partition_on"] = pa.array(partition_on, pa.date32())
    columns["known_at"] = pa.array(known_at, pa.timestamp("us", tz="UTC"))
    columns["_file"] = pa.array(files, pa.string())
    columns["_line"] = pa.nulls(n, pa.int64()) if batch.line is None else pa.array(batch.line, pa.int64())
    columns["_error"] = pa.array([None] * n if batch.errors is None else batch.errors, pa.string())
    columns["_deleted"] = _deleted(entity, batch, columns, n)
    rows = pa.table(columns, schema=bronze.schema(entity))

    seen = [*(batch.columns or ()), *(name for name in table.column_names if name not in (batch.columns or ()))]
    unnamed = tuple(name for name in seen if name not in named.values() and name not in entity.ignore)
    extra = [name for name in unnamed if name in table.column_names]
    values = table.select(extra).cast(pa.schema([(name, pa.string()) for name in extra]))
    values = pa.table({name: mask_emails(values.column(name)) for name in extra}) if extra else None
    texts = batch.broken
    is_in = (partition_on >= np.datetime64(first)) & (partition_on <= np.datetime64(last))
    if not is_in.all():
        inside, place = pa.array(is_in), np.cumsum(is_in) - 1
        rows, values = rows.filter(inside), values.filter(inside) if values is not None else None
        texts = {int(place[at]): text for at, text in texts.items() if is_in[at]}
    since = pc.min(rows["partition_on"]).as_py() or first
    seen_on = dict.fromkeys(unnamed, since) if n or batch.columns else None
    return _Piece(rows, texts, unnamed, seen_on, values)


def _strings(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of dicts as strings: text as it is, null and "" as null, everything else as JSON spells it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: pa.array([text_of(row.get(name)) for row in rows], pa.string()) for name in names})


def text_of(value: Any) -> str | None:
    """A value as bronze holds it."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str).strip('"')


def _first(file: str | Sequence[str]) -> str:
    return file if isinstance(file, str) else next(iter(file), "the batch")


def cleaned(source: Source, column: Column, values: pa.Array) -> pa.Array | pa.ChunkedArray:
    """A column's values as bronze keeps them: unescaped, in UTC, folded, pseudonymised, e-mails masked."""
    if column.unescape == "html" and pc.any(pc.match_substring(values, "&")).as_py():
        encoded = values.dictionary_encode()
        plain = [None if one is None else html.unescape(one) for one in encoded.dictionary.to_pylist()]
        values = pa.array(plain, pa.string()).take(encoded.indices)
    if column.type == "timestamptz":
        values = in_utc(values, source.time_zone)
    if column.upper:
        values = pc.utf8_upper(values)
    return pseudonyms(column.pseudonym, values) if column.pseudonym else mask_emails(values)


def _times(entity: Entity, batch: Batch, columns: dict[str, Any], n: int, last: date) -> tuple[np.ndarray, np.ndarray]:
    """(known_at, partition_on). A row that does not say when it became known, became known on the last day."""
    known_at = batch.known_at
    cursor = batch.cursor or entity.cursor
    if known_at is None and cursor:
        column = columns[cursor]
        known_at = times(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
        if batch.partition_on is not None:
            # What a day brings became known on that day, whatever its clock says.
            start = batch.partition_on.astype("datetime64[us]")
            known_at = np.clip(known_at, start, start + DAY - TICK)
    partition_on = batch.partition_on
    if partition_on is None:
        if known_at is None:
            known_at = np.full(n, np.datetime64("NaT"), "datetime64[us]")
        partition_on = known_at.astype("datetime64[D]")
        partition_on = np.where(np.isnat(partition_on), np.datetime64(last), partition_on)
    partition_on = np.asarray(partition_on, "datetime64[D]")
    start = partition_on.astype("datetime64[us]")
    known_at = start if known_at is None else np.where(np.isnat(known_at), start, known_at)
    return np.asarray(known_at, "datetime64[us]"), partition_on


def _deleted(entity: Entity, batch: Batch, columns: dict[str, Any], n: int) -> pa.Array | pa.ChunkedArray:
    if batch.deleted is not None:
        return pa.array(batch.deleted, pa.bool_())
    if entity.deletes is None or entity.deletes.column is None:
        return pa.array(np.zeros(n, bool))
    return is_deleted(columns[entity.deletes.column])


def is_deleted(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Whether values of a tombstone column (a time, a date, or true) say that the row is gone."""
    return pc.invert(pc.is_in(pc.utf8_lower(pc.fill_null(values, "")), pa.array(NOT_DELETED)))


def _together(name: str, entity: Entity, pieces: list[_Piece]) -> Extract:
    rows = pa.concat_tables([bronze.schema(entity).empty_table(), *(one.rows for one in pieces)]).combine_chunks()
    if rows["_line"].null_count:
        # The position within the file and day: a rerun of the day numbers the same rows the same.
        keys = pd.DataFrame({key: rows[key].to_pandas() for key in ("partition_on", "_file")})
        numbers = pa.array(keys.groupby(["partition_on", "_file"]).cumcount().to_numpy() + 1, pa.int64())
        rows = rows.set_column(rows.column_names.index("_line"), "_line", pc.coalesce(rows["_line"], numbers))
    unnamed = tuple(dict.fromkeys(column for one in pieces for column in one.unnamed))
    extra = None
    if any(one.extra is not None for one in pieces):
        # A piece without extra columns keeps its rows' places.
        filled = [
            one.extra if one.extra is not None else pa.table({unnamed[0]: pa.nulls(one.rows.num_rows, pa.string())})
            for one in pieces
        ]
        extra = pa.concat_tables(filled, promote_options="default")
    looked = [one.seen_on for one in pieces if one.seen_on is not None]
    seen_on = {column: min(one[column] for one in looked if column in one) for column in unnamed} if looked else None
    return Extract(name, rows, _broken(rows, pieces), unnamed, seen_on, extra)


def _broken(rows: pa.Table, pieces: list[_Piece]) -> list[Broken]:
    """The lines that are no rows, by the same file and line as ``rows``, which are those of ``pieces`` together."""
    begins = np.cumsum([0, *(one.rows.num_rows for one in pieces)]).tolist()
    texts = {begin + at: text for begin, one in zip(begins, pieces, strict=False) for at, text in one.texts.items()}
    if not texts:
        return []
    of = rows.select(["partition_on", "_file", "_line", "_error"]).take(pa.array(list(texts))).to_pylist()
    masked = mask_emails(pa.array(list(texts.values()), pa.string())).to_pylist()
    return [
        Broken(row["partition_on"], row["_file"], row["_line"], row["_error"] or "not a row", text)
        for row, text in zip(of, masked, strict=True)
    ]
