"""REST APIs that answer JSON, read by dlt's RESTClient: pages followed, nested records made flat.

``docs/rest-sources.md`` says what each setting does and what an API cannot promise.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Self
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from include.dates import end_of, start_of
from include.ingest.connectors.base import Batch, Connector, Found, Options, SourceError
from include.ingest.connectors.http import HttpConnection, HttpSession, Number
from include.ingest.connectors.paging import OverlappingOffset, Pagination, Shifted, Single, at, identified
from include.ingest.connectors.paging import paginator as paginator_of
from include.ingest.connectors.paging import total as total_of
from include.ingest.infer import infer
from include.ingest.sources import Entity, Source

if TYPE_CHECKING:
    from dlt.sources.helpers.rest_client import RESTClient

CHUNK_DAYS = 31
N_SAME = 3
"""So many pages alike, one after the other, mean that the API does not page at all."""


class Window(Options):
    """Parameters that narrow the answer to what changed within the days; a row outside of the days does no harm."""

    since: str | None = None
    until: str | None = None
    format: str = Field("iso", description="iso, date, epoch, epoch_ms, or a strftime pattern such as %Y%m%d%H%M%S.")

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("iso", "date", "epoch", "epoch_ms") and "%" not in value:
            raise ValueError("is one of iso, date, epoch, epoch_ms, or a strftime pattern")
        return value

    def params(self, first: date, last: date, zone: str) -> dict[str, str]:
        """The parameters for ``first``..``last``; local times are of ``zone``.

        A little wider than the days, so that no reading of "since" and "until" (with or without the moment itself,
        by the second or by the day) loses a row.
        """
        margin = timedelta(seconds=1) if self.format in ("iso", "epoch", "epoch_ms") else timedelta(days=1)
        found = {}
        if self.since:
            found[self.since] = self._text(start_of(first) - margin, zone)
        if self.until:
            found[self.until] = self._text(end_of(last) + margin, zone)
        return found

    def _text(self, moment: datetime, zone: str) -> str:
        if self.format == "iso":
            return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        if self.format.startswith("epoch"):
            return str(int(moment.timestamp()) * (1000 if self.format == "epoch_ms" else 1))
        return moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d" if self.format == "date" else self.format)


@dataclass(frozen=True)
class _Request:
    """What is asked: entities with the same request share its answer."""

    path: str
    data: str
    pagination: Any
    window: Window | None
    params: tuple[tuple[str, str], ...]


class Rest(Connector):
    """Reads the entities of an API, each from one path, child lists from their parents' records."""

    name = "rest"
    looks_back = True

    class Connection(HttpConnection):
        first_day: date | None = Field(None, description="The first business day that the API has rows of.")
        data: str = Field("$", description="JSONPath of the list of records in an answer.")
        pagination: Pagination = Single()
        window: Window | None = None
        params: dict[str, str] = {}

    class Read(Options):
        path: str = Field(pattern=r"^/?[^/?#:\s][^?#:\s]*$", description="Below the base URL, without a query.")
        data: str | None = Field(None, description="Default: the connection's; so are pagination and window.")
        pagination: Pagination | None = None
        window: Window | None = None
        params: dict[str, str] = {}
        records: str | None = Field(None, description="Name of a list within each record: its members are the rows.")
        parent: dict[str, str] = Field({}, description="Column of such a row -> name in the record that holds it.")
        epoch_seconds: list[str] = Field([], description="Names that hold seconds since 1970.")
        epoch_ms: list[str] = []

    @classmethod
    def check_entity(cls, name: str, entity: Entity, source: Source) -> None:
        read = cls.Read.model_validate(entity.read)
        if read.parent and not read.records:
            raise ValueError(f"entities.{name}.read.parent goes with `records`")
        if lacking := set(read.parent) - set(entity.source_columns.values()):
            raise ValueError(f"entities.{name}.read.parent names {min(lacking)}, which no column is read from")

    def __enter__(self) -> Self:
        self.session = HttpSession(self.source.source, self.connection)
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def span(self) -> tuple[date | None, date | None]:
        return self.connection.first_day, None

    def chunks(self, first: date, last: date) -> Iterator[tuple[date, date]]:
        if not all(one.window and one.window.since and one.window.until for one in self._requests()):
            # The API answers all it has, whatever the days: once is enough.
            yield first, last
            return
        while first <= last:
            end = min(last, first + timedelta(days=CHUNK_DAYS - 1))
            yield first, end
            first = end + timedelta(days=1)

    def is_snapshot(self, entity: str) -> bool:
        return self.source.entities[entity].cursor is None

    def read(self, first: date, last: date) -> Iterator[Batch]:
        for request, names in self._requests().items():
            window = request.window.params(first, last, self.source.time_zone) if request.window else {}
            records = self._records(request, window, self._identity(names))
            for name in names:
                yield from self._batches(name, records)

    def keys(self, entity: str) -> pa.Table:
        request = next(one for one, names in self._requests().items() if entity in names)
        rows, _ = self._rows(entity, self._records(request, {}, self._identity([entity])))
        of = self.source.entities[entity]
        return pa.table(
            {key: pa.array([row.get(of.source_columns[key]) for row in rows], pa.string()) for key in of.key}
        )

    def discover(self) -> dict[str, list[Found]]:
        found = {}
        for request, names in self._requests().items():
            records = next(self._pages(request, {}, None))
            for name in names:
                rows, _ = self._rows(name, records)
                seen = infer({one: [row.get(one) for row in rows] for one in dict.fromkeys(chain(*rows))})
                entity = self.source.entities[name]
                said = {of: entity.columns[column].type for column, of in entity.source_columns.items()}
                # A page of nulls says nothing against the YAML.
                found[name] = [one if one.samples else replace(one, type=said.get(one.name, one.type)) for one in seen]
        return found

    # --- asking ----------------------------------------------------------------------------------

    def _requests(self) -> dict[_Request, list[str]]:
        found: dict[_Request, list[str]] = {}
        common = self.connection
        for name, read in self.reads.items():
            request = _Request(
                read.path,
                read.data or common.data,
                read.pagination or common.pagination,
                read.window or common.window,
                tuple(sorted({**common.params, **read.params}.items())),
            )
            found.setdefault(request, []).append(name)
        return found

    def _identity(self, names: Sequence[str]) -> list[str] | None:
        """The names that tell one record from another, where an entity is made of whole records."""
        whole = next((self.source.entities[name] for name in names if not self.reads[name].records), None)
        return [whole.source_columns[key] for key in whole.key] if whole else None

    @cached_property
    def _client(self) -> RESTClient:
        # dlt reports its use unless told not to, before it is imported.
        os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
        from dlt.common.configuration.specs import RuntimeConfiguration
        from dlt.sources.helpers.rest_client import RESTClient

        return RESTClient(
            self.session.base_url,
            headers={"Accept": "application/json", **self.connection.headers},
            auth=self.session.authentication(),
            session=self.session,
            config=RuntimeConfiguration(),
        )

    def _records(self, request: _Request, window: dict[str, str], identity: list[str] | None) -> list[Any]:
        """Every record of the answer. One that comes twice is there twice; one that moved is not lost."""
        for _ in range(self.connection.retry.max_attempts):
            try:
                return [record for page in self._pages(request, window, identity) for record in page]
            except Shifted:
                continue
        raise SourceError(
            f"{self.source.source}: the records of {request.path} move from page to page while we read, "
            f"{self.connection.retry.max_attempts} times over: use pagination by cursor, or read at a quieter time."
        )

    def _pages(self, request: _Request, window: dict[str, str], identity: list[str] | None) -> Iterator[list[Any]]:
        from dlt.common import jsonpath

        client = self._client
        how = request.pagination
        selector = jsonpath.compile_path(request.data)
        paginator = paginator_of(how, identity)
        where = f"{self.source.source}: {request.path}"
        asked: set[tuple] = set()
        totals: list[int] = []
        distinct: set[str] = set()
        n_alike, last_body = 0, None
        pages = client.paginate(
            request.path, params={**dict(request.params), **window}, paginator=paginator, data_selector=selector,
            hooks={"response": []},
        )  # fmt: skip
        while True:
            try:
                page = next(pages)
            except StopIteration:
                break
            except SourceError:
                raise
            except (ValueError, KeyError, TypeError) as error:
                # What dlt says here quotes the whole answer.
                raise SourceError(f"{where} does not page as `pagination: {{by: {how.by}}}` says.") from (
                    None if isinstance(error, ValueError) else error
                )
            if not jsonpath.find_values(selector, payload := page.response.json()):
                has = ", ".join(sorted(payload)) if isinstance(payload, dict) else "a list"
                raise SourceError(f"{where}: the answer has no {request.data} (`data` in the YAML); it has: {has}.")
            body = page.response.content
            n_alike = n_alike + 1 if body == last_body and len(page) else 0
            last_body = body
            if n_alike >= N_SAME:
                raise SourceError(f"{where} answers the same page again and again: it ignores {how.by}, or never ends.")
            records = list(page)[paginator.n_known if isinstance(paginator, OverlappingOffset) else 0 :]
            if getattr(how, "total", None):
                totals.append(total_of(how.total, payload))
                distinct.update(_spelled(identified(record, identity)) for record in records)
            params: Any = page.request.params or {}
            following = (page.request.url, tuple(sorted((name, str(value)) for name, value in params.items())))
            if paginator.has_next_page and following in asked:
                raise SourceError(f"{where} leads back to a page that was read: the pages go round in circles.")
            asked.add(following)
            yield records
        if totals and (len(set(totals)) > 1 or len(distinct) < totals[-1]):
            raise Shifted

    # --- from records to rows --------------------------------------------------------------------

    def _batches(self, name: str, records: list[Any]) -> Iterator[Batch]:
        """The rows in an order that does not depend on how they came: by key, then content, exact repeats last."""
        rows, broken = self._rows(name, records)
        entity, read = self.source.entities[name], self.reads[name]
        file = read.path + (f"#{read.records}" if read.records else "")
        key = [entity.source_columns[column] for column in entity.key]
        n_seen: Counter[str] = Counter()
        ranked = []
        for row in rows:
            content = _spelled(row)
            ranked.append((n_seen[content], [row.get(one) or "" for one in key], content, row))
            n_seen[content] += 1
        rows = [row for *_, row in sorted(ranked, key=lambda one: one[:3])]
        names = dict.fromkeys((*entity.source_columns.values(), *(one for row in rows for one in row)))
        yield Batch(
            name, pa.table({one: pa.array([row.get(one) for row in rows], pa.string()) for one in names}), file=file
        )
        if broken:
            broken = sorted(broken)
            nothing = pa.nulls(len(broken), pa.string())
            yield Batch(
                name,
                pa.table(dict.fromkeys(entity.source_columns.values(), nothing)),
                file=f"{file} (broken)",
                line=np.arange(1, len(broken) + 1),
                errors=[error for error, _ in broken],
                broken={position: text for position, (_, text) in enumerate(broken)},
            )

    def _rows(self, name: str, records: list[Any]) -> tuple[list[dict[str, str | None]], list[tuple[str, str]]]:
        """Rows as strings, and (what is wrong, text) of records that are none."""
        rows, broken = [], []
        for flat in self._flat(name, records):
            problem, row = None, {}
            if isinstance(flat, dict):
                row = {one: _text(value) for one, value in flat.items()}
                problem = _unfit(row)
            else:
                problem = "not a JSON object"
            if problem:
                text = _spelled(flat).encode("utf-8", errors="replace").decode()
                broken.append((problem, text.replace("\0", "�")))
            else:
                rows.append(self._timed(name, row))
        return rows, broken

    def _flat(self, name: str, records: list[Any]) -> Iterator[Any]:
        """Each row as a dict of dotted names; whatever is no object, as it is."""
        entity, read = self.source.entities[name], self.reads[name]
        wanted = {*entity.source_columns.values(), *entity.ignore}
        # Lists that are read as entities of their own are known, here as in their siblings.
        lists = {one.records for one in self.reads.values() if one.records and one.path == read.path}
        for record in records:
            if not isinstance(record, dict):
                yield record
            elif read.records is None:
                yield _flattened({one: value for one, value in record.items() if one not in lists}, wanted)
            else:
                children = at(record, read.records)
                if children is not None and not isinstance(children, list):
                    children = [children]
                for child in children or []:
                    if isinstance(child, dict):
                        given = {column: at(record, of) for column, of in read.parent.items()}
                        yield {**_flattened(child, wanted), **given}
                    else:
                        yield child

    def _timed(self, name: str, row: dict[str, str | None]) -> dict[str, str | None]:
        read = self.reads[name]
        for names, per_second in ((read.epoch_seconds, 1), (read.epoch_ms, 1000)):
            for one in names:
                value = row.get(one)
                # What is no such number stays, for the gate to find.
                if value and re.fullmatch(r"\d{1,15}", value):
                    moment = timedelta(seconds=int(value) // per_second, milliseconds=int(value) % per_second)
                    if moment < timedelta(days=2_900_000):
                        row[one] = (datetime(1970, 1, 1) + moment).isoformat() + "Z"  # noqa: DTZ001
        return row


def _flattened(record: dict[str, Any], wanted: set[str], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``, down to what the YAML names."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in wanted:
            flat |= _flattened(value, wanted, f"{name}.")
        elif value is not None or not any(one.startswith(f"{name}.") for one in wanted):
            flat[name] = value
    return flat


def _text(value: Any) -> str | None:
    """A value as raw has it: text as it is, numbers as they are spelled, lists as JSON."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else _spelled(value)


def _spelled(value: Any) -> str:
    """JSON with numbers as the API spelled them and members in the order of their names."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(one)}: {_spelled(value[one])}" for one in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _unfit(row: dict[str, str | None]) -> str | None:
    together = "".join(filter(None, row.values())) + "".join(row)
    if "\0" in together:
        return "holds a NUL"
    try:
        together.encode()
    except UnicodeEncodeError:
        return "not UTF-8 text"
    return None
