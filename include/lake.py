"""The lake: Delta tables written without Spark (delta-rs) and read by both.

``bronze/<source>/<entity>`` is partitioned by business day, ``core/<table>`` by the month in which a
version became known, ``features/<view>`` by ``as_of``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError
from pyarrow.parquet import filters_to_expression

from include.settings import settings


def table_uri(*parts: str) -> str:
    """Address of a table: ``table_uri('core', 'orders')`` -> ``<lake>/core/orders``."""
    root = settings().lake_root
    if "://" in root:
        return "/".join([root.rstrip("/"), *parts])
    return str(Path(root, *parts))


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
    # Without this every file of the table becomes a fragment of the scan, of which the filter keeps a few.
    partitioned_by = set(table.metadata().partition_columns)
    pruning = [(column, op, _as_text(value)) for column, op, value in filters or [] if column in partitioned_by]
    dataset = table.to_pyarrow_dataset(file_pruning_predicate=pruning or None)
    expression = filters_to_expression(filters) if filters else None
    return dataset.to_table(columns=columns, filter=expression)


def _as_text(value: object) -> str | list[str]:
    if isinstance(value, list | tuple | set | frozenset):
        return [str(one) for one in value]
    return str(value)


def exists(uri: str) -> bool:
    """Whether a Delta table is there."""
    return DeltaTable.is_deltatable(uri)
