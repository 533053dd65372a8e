"""Bronze partitions and what they are made of, so that a verdict can name the very files that it judged."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from include import lake
from include.ingest.sources import Entity

NOTHING = "none"


def uri(source: str, entity: str) -> str:
    """Address of an entity's bronze table."""
    return lake.table_uri("bronze", source, entity)


def fingerprints(source: str, entity: str) -> dict[date, str]:
    """Day -> digest of the names of the partition's data files. A partition that is written again has another."""
    try:
        actions = pa.table(DeltaTable(uri(source, entity)).get_add_actions(flatten=True))
    except TableNotFoundError:
        return {}
    paths = defaultdict(list)
    days = actions["partition.partition_on"].cast(pa.date32()).to_pylist()
    for day, path in zip(days, actions["path"].to_pylist(), strict=True):
        paths[day].append(path)
    return {day: hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16] for day, found in paths.items()}


def schema(entity: Entity) -> pa.Schema:
    """All source columns as strings, then what ingest adds."""
    return pa.schema(
        [(name, pa.string()) for name in entity.columns]
        + [
            ("partition_on", pa.date32()),
            ("known_at", pa.timestamp("us", tz="UTC")),
            ("_file", pa.string()),
            ("_line", pa.int64()),
            ("_error", pa.string()),
            ("_deleted", pa.bool_()),
        ]
    )


def read(source: str, name: str, entity: Entity, first: date, last: date) -> pa.Table:
    """Rows of the partitions ``first``..``last`` in ``schema(entity)``, by day, file and line.

    A column that the YAML gained after they were landed is null.
    """
    rows = lake.read(uri(source, name), filters=[("partition_on", ">=", first), ("partition_on", "<=", last)])
    wanted = schema(entity)
    rows = pa.table(
        {
            one.name: rows[one.name].cast(one.type)
            if one.name in rows.column_names
            else pa.nulls(rows.num_rows, one.type)
            for one in wanted
        },
        schema=wanted,
    )
    return rows.sort_by([("partition_on", "ascending"), ("_file", "ascending"), ("_line", "ascending")])


def count_by_day(rows: pa.Table) -> dict[date, int]:
    """Day -> rows."""
    return {one["values"]: one["counts"] for one in pc.value_counts(rows["partition_on"]).to_pylist()}
