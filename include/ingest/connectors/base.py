"""What a connector is: it says where a source's rows are, and yields them; everything else is done for it.

A connector never writes, never decides what a row means and never sees the warehouse. It yields strings under the
source's own names, and ingest renames, types, pseudonymises, judges, counts and stores them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from include.ingest.sources import Entity, Source


class Options(BaseModel):
    """Base of a connector's settings in the YAML: unknown ones are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SourceError(ValueError):
    """The source cannot be read. The message says what is wrong and what to do, and never holds a secret."""


@dataclass
class Batch:
    """Rows of one entity as the source has them.

    ``rows``: an Arrow table of strings under the source's own column names, or a list of dicts (values become
    strings; nested values JSON). A column that the YAML wants and the batch lacks is an error, unless the YAML calls
    it ``optional``. Further columns are drift, see ``Entity.schema_policy``; rows of dicts may lack any.
    """

    entity: str
    rows: pa.Table | Sequence[dict[str, Any]]
    file: str | Sequence[str] = ""
    """What a person would look for: a path, a table, a URL without secrets."""
    line: np.ndarray | None = None
    """Position in ``file``, from 1; default the position among the rows of the same ``file`` and business day."""
    partition_on: np.ndarray | None = None
    """datetime64[D], the business day; default the day of ``known_at``."""
    known_at: np.ndarray | None = None
    """datetime64[us], UTC; default the entity's cursor, else the start of ``partition_on``."""
    cursor: str | None = None
    """Raw name of the column that says when these rows became known; default the entity's cursor."""
    errors: Sequence[str | None] | None = None
    """What is wrong with a line that is no row; such a line has nulls in all columns."""
    broken: dict[int, str] = field(default_factory=dict)
    """Position -> the text of such a line, which goes to the quarantine, never to the lake."""
    columns: Sequence[str] | None = None
    """All columns the source has, where ``rows`` holds fewer (a query): for the drift check."""
    deleted: np.ndarray | None = None
    """bool: the row is a tombstone (a key that the source no longer has)."""


@dataclass(frozen=True)
class Found:
    """A column that the live source has, as ``source add`` and ``source check`` see it."""

    name: str
    type: str
    """One of ``sources.ColumnType``."""
    is_nullable: bool = True
    is_key: bool = False
    samples: tuple[str, ...] = ()


class Connector:
    """Base of all connectors. Subclass it, set ``name``, and yield batches from ``read``.

    An instance serves one command. It is a context manager: what it opens in ``__enter__`` (a snapshot, a session)
    it closes in ``__exit__``.
    """

    name: ClassVar[str]
    Connection: ClassVar[type[Options]] = Options
    """Settings of ``connection:`` in the YAML."""
    Read: ClassVar[type[Options]] = Options
    """Settings of an entity's ``read:`` in the YAML."""
    lands_in_spark: ClassVar[bool] = False
    """Its rows go to bronze by Structured Streaming; ``read`` is not used."""

    looks_back: ClassVar[bool] = False
    """Its rows lie in the days of their cursors, so that one may come late: ``late_days`` of the YAML."""

    def __init__(self, source: Source, data: Path | None = None) -> None:
        self.source = source
        self.data = data
        self.connection: Any = self.Connection.model_validate(source.connection)
        self.reads: dict[str, Any] = {
            name: self.Read.model_validate(entity.read) for name, entity in source.entities.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @classmethod
    def check_source(cls, source: Source) -> None:
        """Refuse a YAML that the connector cannot serve: ``ValueError`` names the setting. No I/O."""
        _validated(cls.Connection, source.connection, "connection")
        if source.late_days and not cls.looks_back:
            raise ValueError(f"late_days: a source of type {cls.name} has no rows that come late")
        for name, entity in source.entities.items():
            _validated(cls.Read, entity.read, f"entities.{name}.read")
            cls.check_entity(name, entity, source)

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        """As ``check_source``, for what goes beyond ``Read``; default: nothing."""

    def span(self) -> tuple[date | None, date | None]:
        """First and last business day that the source has rows of; None where only time will tell."""
        return None, None

    def chunks(self, first: date, last: date) -> Iterator[tuple[date, date]]:
        """The ranges of days that are landed one after the other; default all at once."""
        yield first, last

    def is_snapshot(self, entity: str) -> bool:
        """Whether ``read`` yields the entity as it is now, whatever the day: such a day is not landed anew later."""
        return False

    def read(self, first: date, last: date) -> Iterator[Batch]:
        """Rows that became known on ``first``..``last``; the same for the same days, whenever and however often.

        Several batches an entity are fine, in any order; a row that is yielded twice is counted as a duplicate. Rows
        of other days are dropped. Anything that goes wrong is a ``SourceError``.
        """
        raise NotImplementedError

    def look(self, day: date) -> Iterator[Batch]:
        """Rows of one day, for ``source check``: all of them, or as many as a person waits for."""
        return self.read(day, day)

    def keys(self, entity: str) -> pa.Table:
        """All keys that the source has now, strings under the raw names: for ``deletes: {by: keys}``."""
        raise SourceError(f"{self.source.source}.{entity}: {self.name} cannot compare keys; use deletes by column.")

    def discover(self) -> dict[str, list[Found]]:
        """What the live source has: entity or table -> columns. For ``source check`` and ``source add``."""
        raise SourceError(f"A source of type {self.name} cannot say what it has: write the YAML by hand.")

    def proposed(self, found: str) -> dict[str, Any]:
        """The ``read:`` of an entity for what ``discover`` calls ``found``, for ``source add``."""
        return next(({name: found} for name in ("table", "file") if name in self.Read.model_fields), {})

    def findings(self) -> list[str]:
        """What a person should know about the live source before loading it, for ``source check``."""
        return []


def _validated(model: type[Options], value: dict[str, Any], where: str) -> None:
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = [
            f"{'.'.join([where, *map(str, one['loc'])])}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise ValueError("; ".join(found)) from None
