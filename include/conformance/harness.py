"""What a connector's author writes so that the suite can check it: how to put rows where the connector reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

Row = Mapping[str, Any]
"""A row of the suite: name -> int, str, Decimal, bool, date, datetime (with a zone) or None."""

COLUMNS = {
    "id": "bigint",
    "label": "text",
    "note": "text",
    "amount": "numeric(18,4)",
    "is_paid": "boolean",
    "due_on": "date",
    "happened_at": "timestamptz",
    "updated_at": "timestamptz",
}
"""The suite's table: ``id`` is the key, ``updated_at`` the cursor. ``label`` is never null; all else may be."""

SOURCE, ENTITY, DRIFT = "conformance", "things", "surprise"
"""What the suite calls its source and its entity, and the column that appears one day."""


class Harness:
    """Subclass it and write ``serve``, ``gone`` and, where there is a login, ``refused``.

    The suite gets its rows from what your connector reads, so serve them by the real thing: a database, an HTTP
    server on loopback, a folder.
    """

    secrets: ClassVar[tuple[str, ...]] = ()
    """Every password and token that ``serve`` and ``refused`` use: none may appear in a row, a log or an error."""

    columns: ClassVar[tuple[str, ...]] = tuple(COLUMNS)
    """Those of ``COLUMNS`` that the platform can hold; ``id`` and ``updated_at`` at least."""

    can_drift: ClassVar[bool] = True
    """Whether a table of the platform can gain a column: one more name in the rows of ``serve``."""

    def serve(self, rows: Sequence[Row], page_size: int) -> AbstractContextManager[Mapping[str, Any]]:
        """A source that holds ``rows``, in this order, and gives ``page_size`` at a time, while the block lasts.

        Yields the YAML of the source as a dict; ``described`` makes it. Store each value as the platform would.
        """
        raise NotImplementedError

    def gone(self) -> AbstractContextManager[Mapping[str, Any]]:
        """A source that is not there: a closed port, a missing file. Yields its YAML."""
        raise NotImplementedError

    def refused(self) -> AbstractContextManager[Mapping[str, Any]]:
        """A source that refuses the login, with one of ``secrets``. Yields its YAML. Needed where there are secrets."""
        raise NotImplementedError


def described(
    type: str,
    connection: Mapping[str, Any],
    read: Mapping[str, Any] | None = None,
    columns: Iterable[str] = COLUMNS,
    **settings: Any,
) -> dict[str, Any]:
    """The YAML of the suite's source for the connector ``type``; ``settings`` are more keys of the source itself."""
    wanted = {name: {"type": COLUMNS[name], "required": name in ("id", "updated_at")} for name in columns}
    entity = {"key": ["id"], "cursor": "updated_at", "read": dict(read or {}), "columns": wanted}
    return {
        "source": SOURCE,
        "type": type,
        "marketplace": SOURCE,
        "currency": "EUR",
        "connection": dict(connection),
        "entities": {ENTITY: entity},
        **settings,
    }
