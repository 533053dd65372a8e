"""The column rules of a source's YAML as Spark columns, with the verdicts that ``expectations.raw`` gives.

A stream's rows are judged where they are parsed: a gate that reads a day of events into memory would not be flat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from include.ingest.sources import Column as Declared
from include.ingest.sources import Entity
from include.ingest.types import PATTERNS
from include.ops import Severity

CAST = {
    "integer": "int",
    "bigint": "bigint",
    "numeric(18,4)": "decimal(18,4)",
    "timestamptz": "timestamp",
    "date": "date",
    "boolean": "boolean",
}
TYPED = "{} typed"
SHORT_TIME = r"^(.{13}:\d{2})(?!:)"
EARLIEST, LATEST = "1677-09-21T00:12:43.145225Z", "2262-04-11T23:47:16.854775Z"
"""What ``include.ingest.types`` can hold: nanoseconds in 64 bits. Year 0 and year 9999 lie outside."""
FIRST_DAY, LAST_DAY = "1677-09-22", "2262-04-11"
PLAIN_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-](0\d|1[0-5])(:?[0-5]\d)?)?)?\z"
"""What Spark's cast reads as it stands; other spellings are brought into this one."""


def typed(kind: str, value: Column) -> Column:
    """A column of strings as ``kind`` (one of ``sources.ColumnType``); null where it cannot be read."""
    if kind == "text":
        return value
    if kind == "timestamptz":
        return _within(
            _time(value).try_cast("timestamp"), F.lit(EARLIEST).cast("timestamp"), F.lit(LATEST).cast("timestamp")
        )
    made = F.when(value.rlike(_whole(PATTERNS[kind])), value).try_cast(CAST[kind])
    if kind == "numeric(18,4)":
        return F.when(F.abs(value.try_cast("double")) < 1e14, made)
    if kind == "date":
        return _within(made, F.lit(FIRST_DAY).cast("date"), F.lit(LAST_DAY).cast("date"))
    return made


def with_typed(rows: DataFrame, entity: Entity) -> DataFrame:
    """``rows`` (strings) and, for each column that is no text, ``<column> typed``.

    Made once and under a name of its own: Spark would read a time again for every rule that looks at it.
    """
    return rows.withColumns(
        {TYPED.format(name): typed(one.type, F.col(name)) for name, one in entity.columns.items() if one.type != "text"}
    )


def broken(entity: Entity, severity: Severity) -> Column:
    """Names of the column rules with ``severity`` that a row of ``with_typed`` breaks, with commas between.

    In the gate's order, "" where it breaks none. Nulls break only the rules about nulls.
    """
    return F.concat_ws(
        ",",
        *(
            F.when(is_broken, F.lit(rule))
            for name, column in entity.columns.items()
            for rule, of, is_broken in _column_rules(name, column)
            if of == severity
        ),
    )


def _column_rules(name: str, column: Declared) -> Iterator[tuple[str, Severity, Column]]:
    value = F.col(name)
    made = value if column.type == "text" else F.col(TYPED.format(name))
    if column.required:
        yield f"{name}_is_present", column.severity, value.isNull()
    if column.type != "text":
        yield f"{name}_is_{column.type.split('(')[0]}", "critical", value.isNotNull() & made.isNull()
    if column.min is not None or column.max is not None:
        # As the gate does, by the double: a number of more digits than numeric(18,4) keeps is not rounded first.
        number = F.when(made.isNotNull(), value.try_cast("double"))
        outside = F.lit(False)
        if column.min is not None:
            outside = outside | (number < column.min)
        if column.max is not None:
            outside = outside | (number > column.max)
        yield f"{name}_is_in_range", column.severity, outside
    if column.values:
        yield f"{name}_is_known", column.severity, ~value.isin(column.values)
    if column.pattern:
        # As Python reads it: a line ends at \n alone, and \d is a digit of any script.
        yield f"{name}_matches", column.severity, ~value.rlike(f"(?dU){_java(column.pattern)}")


def _time(value: Column) -> Column:
    """Times as ``PLAIN_TIME``; null where ``value`` is none."""
    full = F.regexp_replace(F.regexp_replace(value, r" ?(Z|[+-]\d{2}(:?\d{2})?)\z", "$1"), SHORT_TIME, "$1:00")
    return F.when(value.rlike(PLAIN_TIME), value).when(value.rlike(_whole(PATTERNS["timestamptz"])), full)


def _within(value: Column, first: Column, last: Column) -> Column:
    return F.when((value >= first) & (value <= last), value)


def _whole(pattern: str) -> str:
    """``pattern``, whose last ``$`` means the end of the text: in Java it would allow a line's end after it."""
    return re.sub(r"\$$", r"\\z", pattern)


def _java(pattern: str) -> str:
    return pattern.replace("(?P<", "(?<")
