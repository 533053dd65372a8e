"""The lake: Delta tables written without Spark (delta-rs) and read by both.

``bronze/<source>/<entity>`` is partitioned by the month of the business day, ``core/<table>`` by the month in which a
version became known, ``features/<view>`` by ``as_of``. ``include.maintenance`` looks after all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyarrow.dataset import ParquetFragmentScanOptions, ParquetReadOptions
from pyarrow.parquet import filters_to_expression

from include.settings import settings

BATCH_ROWS = 65_536
"""Rows that a scan yields at once, at most."""

STREAMED = ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True, buffer_size=2**20)
"""By default Arrow reads all columns of a row group at once: most of what a scan weighs."""

STATISTICS = "delta.dataSkippingStatsColumns"


def table_uri(*parts: str) -> str:
    """Address of a table: ``table_uri('core', 'orders')`` -> ``<lake>/core/orders``."""
    root = settings().lake_root
    if "://" in root:
        return "/".join([root.rstrip("/"), *parts])
    return str(Path(root, *parts))


def properties(statistics_on: Sequence[str]) -> dict[str, str]:
    """Delta properties of a table that keeps statistics of ``statistics_on`` alone, and history for the retention.

    What the log says of a column outlives the row, so no column of persons may be among them.
    """
    kept = f"interval {settings().lake_retention_days} days"
    return {
        STATISTICS: ",".join(statistics_on),
        "delta.logRetentionDuration": kept,
        "delta.deletedFileRetentionDuration": kept,
        "delta.checkpointInterval": "20",
    }


def opened(uri: str, partition_by: Sequence[str], by_hand: str) -> DeltaTable | None:
    """The table, None where there is none.

    ``RuntimeError`` where it is partitioned otherwise, which an earlier Emporium did; ``by_hand`` says what to do.
    """
    try:
        table = DeltaTable(uri)
    except TableNotFoundError:
        return None
    found = table.metadata().partition_columns
    if found != list(partition_by):
        raise RuntimeError(
            f"The lake's table {uri} is of an earlier Emporium (partitioned by {', '.join(found) or 'nothing'}, "
            f"now by {', '.join(partition_by)}): {by_hand}."
        )
    return table


def ensure(
    uri: str, schema: pa.Schema, partition_by: Sequence[str], properties: dict[str, str], by_hand: str
) -> DeltaTable:
    """The table as ``opened``, made when missing."""
    table = opened(uri, partition_by, by_hand)
    if table is not None:
        return table
    return DeltaTable.create(uri, schema, mode="ignore", partition_by=list(partition_by), configuration=properties)


def replace_days(table: DeltaTable, rows: pa.Table, day: str, month: str, first: date, last: date) -> None:
    """Replace the rows whose ``day`` is in ``first``..``last`` by ``rows``, in one commit.

    ``month`` is the partition column, the first of the day's month. Rows of other days are a ``ValueError``. Days
    that have no rows yet, by the log, are appended, which reads nothing.
    """
    if rows.num_rows:
        least, most = (one.as_py() for one in pc.min_max(rows[day]).values())
        if least < first or most > last:
            raise ValueError(f"Rows of {least} .. {most} cannot replace {day} {first} .. {last} of {table.table_uri}.")
    if not _holds(table, day, month, first, last):
        if rows.num_rows:
            write_deltalake(table, rows, mode="append", schema_mode="merge")
        return
    predicate = (
        f"{month} >= '{first.replace(day=1)}' and {month} <= '{last}' and {day} >= '{first}' and {day} <= '{last}'"
    )
    write_deltalake(table, rows, mode="overwrite", predicate=predicate, schema_mode="merge")


def _holds(table: DeltaTable, day: str, month: str, first: date, last: date) -> bool:
    """Whether a file may hold rows of the days: by its month, and by its statistics where it has them."""
    files = pa.table(table.get_add_actions(flatten=True))
    if not files.num_rows:
        return False
    months = files[f"partition.{month}"].cast(pa.date32())
    in_months = pc.and_(pc.greater_equal(months, first.replace(day=1)), pc.less_equal(months, last))
    if f"min.{day}" not in files.column_names:
        return pc.any(in_months).as_py()
    # A file without statistics may hold anything.
    low = pc.fill_null(files[f"min.{day}"].cast(pa.date32()), date.min)
    high = pc.fill_null(files[f"max.{day}"].cast(pa.date32()), date.max)
    return pc.any(pc.and_(in_months, pc.and_(pc.less_equal(low, last), pc.greater_equal(high, first)))).as_py()


def scan(
    table: DeltaTable,
    filters: list[tuple],
    columns: list[str] | None = None,
    dictionaries: Sequence[str] = (),
    where: pc.Expression | None = None,
) -> Iterator[pa.Table]:
    """The rows that ``filters`` and ``where`` keep (all without), some thousands at a time: any table fits in memory.

    ``dictionaries`` are columns of strings that repeat: read as dictionaries.
    """
    dataset = table.to_pyarrow_dataset(
        file_pruning_predicate=_pruning(table, filters) or None,
        parquet_read_options=ParquetReadOptions(dictionary_columns=set(dictionaries)) if dictionaries else None,
    )
    kept = filters_to_expression(filters) if filters else None
    if where is not None:
        kept = where if kept is None else kept & where
    # File by file and without threads: of the whole dataset what is read ahead of a taker that is slower grows with
    # the table (0.26 GB of two columns in 300 files), and so do the footers, which it keeps.
    for file in dataset.get_fragments(filter=kept):
        for batch in file.to_batches(
            schema=dataset.schema,
            columns=columns,
            filter=kept,
            batch_size=BATCH_ROWS,
            batch_readahead=1,
            use_threads=False,
            cache_metadata=False,
            fragment_scan_options=STREAMED,
        ):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


def _pruning(table: DeltaTable, filters: list[tuple] | None) -> list[tuple]:
    """Without this every file of the table becomes a fragment of the scan, of which the filter keeps a few."""
    partitioned_by = set(table.metadata().partition_columns)
    return [(column, op, _as_text(value)) for column, op, value in filters or [] if column in partitioned_by]


def replace_partition(uri: str, rows: pa.Table, column: str, values: Sequence[date]) -> None:
    """Replace the partitions ``column in values`` of the table with ``rows``, in one commit.

    Rows of other partitions are an error (Delta refuses them); no rows empties the partitions.
    The table is made when missing. A rerun leaves the same rows.
    """
    if not values:
        return
    if "://" not in uri:
        Path(uri).mkdir(parents=True, exist_ok=True)
    try:
        DeltaTable(uri)
    except TableNotFoundError:
        write_deltalake(uri, rows, partition_by=[column], mode="append")
        return
    listed = ", ".join(f"'{value.isoformat()}'" for value in values)
    predicate = (
        f"{column} in ({listed})"
        if len(values) < 50
        else (f"{column} >= '{min(values).isoformat()}' and {column} <= '{max(values).isoformat()}'")
    )
    write_deltalake(uri, rows, partition_by=[column], mode="overwrite", predicate=predicate, schema_mode="merge")


def read(uri: str, filters: list[tuple] | None = None, columns: list[str] | None = None) -> pa.Table:
    """Rows of a table as Arrow, partition-pruned by ``filters`` (``[(column, op, value), ...]``, all must hold).

    Raises ``FileNotFoundError`` naming the table where nothing was written yet.
    """
    try:
        table = DeltaTable(uri)
    except TableNotFoundError as error:
        raise FileNotFoundError(f"The lake has no table {uri} yet: run the step that writes it first.") from error
    dataset = table.to_pyarrow_dataset(file_pruning_predicate=_pruning(table, filters) or None)
    expression = filters_to_expression(filters) if filters else None
    return dataset.to_table(columns=columns, filter=expression)


def _as_text(value: object) -> str | list[str]:
    if isinstance(value, list | tuple | set | frozenset):
        return [str(one) for one in value]
    return str(value)


def exists(uri: str) -> bool:
    """Whether a Delta table is there."""
    return DeltaTable.is_deltatable(uri)
