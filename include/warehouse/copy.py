"""COPY from Arrow into Postgres."""

from __future__ import annotations

import io

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from psycopg import sql


def copy_table(conn: psycopg.Connection, table: str, rows: pa.Table, chunk_rows: int = 100_000) -> int:
    """COPY ``rows`` into ``table`` (``schema.name`` or a bare temp name) by column name; returns the row count.

    Text COPY from Arrow's own CSV writer: an empty field is null, an empty string is ``""``.
    Timestamps must carry a zone (they are written as UTC).
    """
    target = sql.Identifier(*table.split("."))
    names = sql.SQL(", ").join(sql.Identifier(name) for name in rows.column_names)
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(target, names)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, rows.num_rows, chunk_rows):
            sink = io.BytesIO()
            piece = _writable(rows.slice(start, chunk_rows))
            pacsv.write_csv(piece, sink, pacsv.WriteOptions(include_header=False, quoting_style="all_valid"))
            copy.write(sink.getbuffer())
    return rows.num_rows


def _writable(rows: pa.Table) -> pa.Table:
    """Types that Arrow's CSV writer prints and Postgres reads: zoned timestamps become ISO text with Z."""
    columns = []
    for column in rows.columns:
        if pa.types.is_timestamp(column.type):
            naive = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us"))
            column = pc.binary_join_element_wise(pc.cast(naive, pa.string()), pa.scalar("Z"), "")
        elif pa.types.is_dictionary(column.type):
            column = column.dictionary_decode() if isinstance(column, pa.Array) else column.cast(pa.string())
        columns.append(column)
    return pa.table(dict(zip(rows.column_names, columns, strict=True)))
