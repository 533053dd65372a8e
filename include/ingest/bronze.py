"""Bronze: what a source said, day by day, and what each day is made of, so that a verdict can name what it judged.

A table is ``lake/bronze/<source>/<entity>``. The logical partition is the business day: a landing replaces whole days.
The physical one is the month, so that a shop's hourly files end as a few (``include.maintenance``). A day's identity is
its content and not the files that hold it, so compacting changes no verdict.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from include import lake
from include.ingest.sources import Entity

NOTHING = "none"
"""The batch of a day without rows."""

DAY, MONTH, BATCH = "partition_on", "partition_month", "_batch"
PARTITION_BY = [MONTH]

PIECE_ROWS = 250_000
"""Rows that the gate and load hold at once."""


def uri(source: str, entity: str) -> str:
    """Address of an entity's bronze table."""
    return lake.table_uri("bronze", source, entity)


def schema(entity: Entity) -> pa.Schema:
    """All source columns as strings, then what extraction adds."""
    return pa.schema(
        [(name, pa.string()) for name in entity.columns]
        + [
            (DAY, pa.date32()),
            ("known_at", pa.timestamp("us", tz="UTC")),
            ("_file", pa.string()),
            ("_line", pa.int64()),
            ("_error", pa.string()),
            ("_deleted", pa.bool_()),
        ]
    )


def stored(entity: Entity) -> pa.Schema:
    """``schema(entity)``, then what the table needs: the physical partition and the batch."""
    return schema(entity).append(pa.field(MONTH, pa.date32())).append(pa.field(BATCH, pa.string()))


def properties() -> dict[str, str]:
    """Delta properties of every bronze table, whoever makes it."""
    return lake.properties(statistics_on=[DAY])


def ensure(source: str, name: str, entity: Entity) -> DeltaTable:
    """The entity's table, made when missing. ``RuntimeError`` where an earlier Emporium laid it out by day."""
    return lake.ensure(uri(source, name), stored(entity), PARTITION_BY, properties(), by_hand=_by_hand(source))


def _by_hand(source: str) -> str:
    return (
        f"remove the folder {lake.table_uri('bronze', source)} and bring its days back with "
        f"`python -m include.ingest land --source {source} --from D0 --as-of D`, the gate and load"
    )


def replace(source: str, name: str, entity: Entity, rows: pa.Table, first: date, last: date) -> dict[date, str]:
    """Replace the days ``first``..``last`` by ``rows``, in one commit; returns the batch of every day with rows.

    ``rows`` has the columns of ``schema(entity)`` and may have more; rows of other days are an error. They are stored
    by day, file and line, each day with the digest of its content as ``_batch``.
    """
    stored_rows = identified(rows)
    lake.replace_days(ensure(source, name, entity), stored_rows, DAY, MONTH, first, last)
    days = stored_rows.group_by(DAY).aggregate([(BATCH, "min")])
    return dict(zip(days[DAY].to_pylist(), days[f"{BATCH}_min"].to_pylist(), strict=True))


def identified(rows: pa.Table) -> pa.Table:
    """``rows`` by day, file and line, with ``partition_month`` and ``_batch``."""
    rows = _sorted(rows)
    on = rows[DAY].to_numpy().astype("datetime64[D]")
    starts = np.flatnonzero(np.r_[True, on[1:] != on[:-1]]) if len(on) else np.array([], "int64")
    lengths = np.diff(np.r_[starts, len(on)])
    digests = [digest(rows.slice(start, n)) for start, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    batch = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(len(digests)), lengths), pa.int32()), pa.array(digests, pa.string())
    ).cast(pa.string())
    months = pa.array(on.astype("datetime64[M]").astype("datetime64[D]"), pa.date32())
    return rows.append_column(MONTH, months).append_column(BATCH, batch)


def digest(rows: pa.Table) -> str:
    """SHA-256 (16 hex digits) of one day's rows as they are ordered by ``identified``: every value of every column.

    Columns that are null throughout do not count, so that one that a YAML gains later changes no batch.
    """
    found = hashlib.sha256(str(rows.num_rows).encode())
    for name in sorted(set(rows.column_names) - {MONTH, BATCH}):
        column = rows[name].combine_chunks()
        if column.null_count == len(column):
            continue
        if not pa.types.is_string(column.type):
            column = column.cast(pa.int64() if not pa.types.is_date32(column.type) else pa.int32()).cast(pa.string())
        found.update(f"\n{name}\n".encode())
        found.update(pc.fill_null(pc.binary_length(column), -1).to_numpy(zero_copy_only=False).astype("<i4").tobytes())
        found.update(_text_of(column.drop_null()))
    return found.hexdigest()[:16]


def _text_of(column: pa.StringArray) -> memoryview | bytes:
    """The characters of all strings, one after the other."""
    if not len(column):
        return b""
    _, offsets, characters = column.buffers()
    if characters is None:
        return b""
    at = np.frombuffer(offsets, "int32")
    return memoryview(characters)[at[column.offset] : at[column.offset + len(column)]]


def _sorted(rows: pa.Table) -> pa.Table:
    """By day, file and line; the files as numbers, which sort ten times faster than strings."""
    if not rows.num_rows:
        return rows
    files = rows["_file"].combine_chunks().dictionary_encode()
    names = files.dictionary.to_pylist()
    rank = np.empty(len(names), "int64")
    rank[sorted(range(len(names)), key=lambda at: names[at] or "")] = np.arange(len(names))
    file = rank[pc.fill_null(files.indices, 0).to_numpy(zero_copy_only=False)]
    line = pc.fill_null(rows["_line"], 0).to_numpy()
    order = np.lexsort((line, file, rows[DAY].to_numpy()))
    if (order[1:] > order[:-1]).all():
        return rows.combine_chunks()
    return rows.combine_chunks().take(pa.array(order))


def held(source: str, name: str, first: date, last: date) -> dict[date, tuple[int, str]]:
    """Day -> (rows, batch), as ``tables.landed`` has them; days without rows are absent.

    The batch is the rows' ``_batch``, or a digest of several (a stream appends) and their rows. Rows are counted a few
    thousand at a time: the same row twice is no other batch.
    """
    found: dict[date, dict[str, int]] = defaultdict(dict)
    table = lake.opened(uri(source, name), PARTITION_BY, by_hand=_by_hand(source))
    if table is None:
        return {}
    for piece in lake.scan(table, _days(first, last), columns=[DAY, BATCH], dictionaries=[BATCH]):
        counts = piece.group_by([DAY, BATCH]).aggregate([([], "count_all")])
        for on, batch, n in zip(*(counts[column].to_pylist() for column in (DAY, BATCH, "count_all")), strict=True):
            found[on][batch] = found[on].get(batch, 0) + n
    return {on: (sum(of_day.values()), _combined(of_day)) for on, of_day in found.items()}


def batches(source: str, name: str, first: date, last: date) -> dict[date, str]:
    """Day -> what the day is made of, see ``held``."""
    return {on: batch for on, (_, batch) in held(source, name, first, last).items()}


def _combined(found: dict[str, int]) -> str:
    if len(found) == 1:
        return next(iter(found))
    text = "\n".join(sorted(f"{batch} {n}" for batch, n in found.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _days(first: date, last: date) -> list[tuple]:
    """Filters: the months prune files by the log, the days decide."""
    return [(MONTH, ">=", first.replace(day=1)), (MONTH, "<=", last), (DAY, ">=", first), (DAY, "<=", last)]


def read(source: str, name: str, entity: Entity, first: date, last: date, also: Sequence[str] = ()) -> pa.Table:
    """Rows of the days ``first``..``last`` in ``schema(entity)``, by day, file and line.

    A column that the YAML gained after they were landed is null.
    """
    found = list(pieces(source, name, entity, first, last, also=also))
    return _sorted(pa.concat_tables([_wanted(entity, also).empty_table(), *found]))


def pieces(
    source: str,
    name: str,
    entity: Entity,
    first: date,
    last: date,
    n_rows: int = PIECE_ROWS,
    also: Sequence[str] = (),
    file: str | None = None,
) -> Iterator[pa.Table]:
    """As ``read``, about ``n_rows`` at a time: a day may be spread over pieces, each sorted in itself.

    ``also`` are further columns of strings (``include.ingest.drift``); ``file`` takes the rows of one file alone.
    """
    table = lake.opened(uri(source, name), PARTITION_BY, by_hand=_by_hand(source))
    wanted = _wanted(entity, also)
    filters = _days(first, last) + ([("_file", "==", file)] if file else [])
    held: list[pa.Table] = []
    n_held = 0
    for piece in lake.scan(table, filters) if table is not None else ():
        held.append(_as(piece, wanted))
        n_held += piece.num_rows
        if n_held >= n_rows:
            yield _sorted(pa.concat_tables(held))
            held, n_held = [], 0
    if n_held:
        yield _sorted(pa.concat_tables(held))


RULES, WARNED = "_rules", "_warned"
"""Of a stream: the critical rules that a row broke as it landed, and the others; null where there are none."""


def marked(
    source: str, name: str, entity: Entity, first: date, last: date, files: Sequence[str] = (), n_rows: int = 50_000
) -> Iterator[pa.Table]:
    """Rows of a stream that broke a rule as they landed, and all rows of ``files``, about ``n_rows`` at a time.

    ``schema(entity)``, then ``_rules`` and ``_warned``.
    """
    table = lake.opened(uri(source, name), PARTITION_BY, by_hand=_by_hand(source))
    if table is None or RULES not in {one.name for one in table.schema().fields}:
        return
    wanted = pa.schema([*schema(entity), *((one, pa.list_(pa.string())) for one in (RULES, WARNED))])
    where = pc.field("_file").isin(pa.array(files, pa.string()))
    for one in ("_error", RULES, WARNED):
        where = where | pc.field(one).is_valid()
    held: list[pa.Table] = []
    for piece in lake.scan(table, _days(first, last), where=where):
        held.append(_as(piece, wanted))
        if sum(one.num_rows for one in held) >= n_rows:
            yield _sorted(pa.concat_tables(held))
            held = []
    if held:
        yield _sorted(pa.concat_tables(held))


def _wanted(entity: Entity, also: Sequence[str]) -> pa.Schema:
    return pa.schema([*schema(entity), *((column, pa.string()) for column in also)])


def everything(source: str, name: str, day: date) -> pa.Table:
    """One day's rows with all columns that the table has; none where there is no table."""
    table = lake.opened(uri(source, name), PARTITION_BY, by_hand=_by_hand(source))
    found = list(lake.scan(table, _days(day, day))) if table is not None else []
    return pa.concat_tables(found) if found else pa.table({})


def digest_of(rows: pa.Table) -> str:
    """What the batch of a day with these rows must be: the checksum of ``everything``."""
    return digest(_sorted(rows)) if rows.num_rows else NOTHING


def _as(rows: pa.Table, wanted: pa.Schema) -> pa.Table:
    return pa.table(
        {
            one.name: rows[one.name].cast(one.type)
            if one.name in rows.column_names
            else pa.nulls(rows.num_rows, one.type)
            for one in wanted
        },
        schema=wanted,
    )


def count_by_day(rows: pa.Table) -> dict[date, int]:
    """Day -> rows."""
    return {one["values"]: one["counts"] for one in pc.value_counts(rows[DAY]).to_pylist()}
