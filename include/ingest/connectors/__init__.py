"""The connectors by name: Emporium's own, and those of installed packages (entry points ``emporium.connectors``)."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from include.ingest.connectors.base import Batch, Connector, Found, Options, SourceError

if TYPE_CHECKING:
    from include.ingest.sources import Source

__all__ = ["Batch", "Connector", "Found", "Options", "SourceError", "connector", "connector_class", "names"]

GROUP = "emporium.connectors"
OWN = {
    "sql": "include.ingest.connectors.sql:Sql",
    "files": "include.ingest.connectors.files:Files",
    "dump": "include.ingest.connectors.dump:Dump",
    "rest": "include.ingest.connectors.rest:Rest",
    "stream": "include.ingest.connectors.stream:Stream",
    "rates": "include.ingest.connectors.rates:Rates",
    "holidays": "include.ingest.connectors.holidays:Holidays",
    "weather": "include.ingest.connectors.weather:Weather",
}
"""Imported on use: dlt alone takes two seconds."""


def names() -> list[str]:
    """Every type that a YAML may name."""
    return sorted({*OWN, *(one.name for one in entry_points(group=GROUP))})


@lru_cache
def connector_class(name: str) -> type[Connector]:
    """The connector called ``name``. ``ValueError`` names the known ones, or why a package's cannot be used."""
    if name in OWN:
        module, _, attribute = OWN[name].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        there = {one.name: one for one in entry_points(group=GROUP)}
        if name not in there:
            raise ValueError(f"there is no connector {name!r}; types are: {', '.join(names())}")
        try:
            found = there[name].load()
        except Exception as error:
            raise ValueError(f"the connector {name!r} of {there[name].value} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Connector)):
        raise ValueError(f"the connector {name!r} is not a subclass of include.ingest.connectors.Connector")
    return found


def connector(source: Source, data: Path | None = None) -> Connector:
    """The connector that reads ``source``; ``data`` is the folder of a dump where one was given."""
    return connector_class(source.type)(source, data)
