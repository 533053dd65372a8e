"""How an API's pages follow one another: dlt's paginators, and one of our own that notices when records move."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from requests import Request, Response

from include.ingest.connectors.base import Options, SourceError


class Single(Options):
    """One answer holds everything."""

    by: Literal["none"] = "none"


class PageNumber(Options):
    by: Literal["page"]
    param: str = "page"
    first: int = 1
    pages: str | None = Field(None, description="Where the answer says how many pages there are.")
    more: str | None = Field(None, description="Where the answer says whether there are more.")
    total: str | None = Field(None, description="Where the answer says how many records there are.")


class Offset(Options):
    by: Literal["offset"]
    param: str = "offset"
    limit_param: str = "limit"
    limit: int = Field(100, ge=2)
    total: str | None = Field(None, description="Where the answer says how many records there are.")


class Cursor(Options):
    by: Literal["cursor"]
    param: str = "cursor"
    next: str = Field(description="Where the answer has the token of the next page; null or absent on the last.")


class NextLink(Options):
    by: Literal["next_link"]
    next: str = Field(description="Where the answer has the address of the next page.")


class LinkHeader(Options):
    by: Literal["link_header"]
    rel: str = "next"


Pagination = Annotated[Single | PageNumber | Offset | Cursor | NextLink | LinkHeader, Field(discriminator="by")]


class Shifted(Exception):
    """Records moved from one page to another while the pages were read."""


class OverlappingOffset:
    """Offsets by what has come, not by what was asked for; each page begins with the last record of the one before.

    Where it does not, records were inserted or removed before it: ``Shifted``. It has the methods of dlt's
    ``BasePaginator``; not being one, it is imported without dlt.
    """

    def __init__(self, how: Offset, identity: list[str] | None) -> None:
        self.how = how
        self.identity = identity
        self.params: dict[str, Any] = {}
        self.boundary: Any = None
        self.n_known = 0
        """How many records at the head of the page just read are those of the page before."""
        self.offset = 0
        self.has_next_page = True
        self.has_begun = False

    def init_request(self, request: Request) -> None:
        """Ask for the first page."""
        self.params = dict(request.params or {})  # type: ignore[arg-type]
        self.update_request(request)

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        """Compare the page with the one before."""
        records = data or []
        if self.has_begun:
            if not records or identified(records[0], self.identity) != self.boundary:
                raise Shifted
            self.n_known = 1
        self.has_begun = True
        if len(records) <= self.n_known:
            self.has_next_page = False
            return
        self.offset += len(records) - 1
        self.boundary = identified(records[-1], self.identity)
        if self.how.total and self.offset + 1 >= total(self.how.total, response.json()):
            self.has_next_page = False

    def update_request(self, request: Request) -> None:
        """Ask for the next page."""
        request.params = {**self.params, self.how.limit_param: self.how.limit, self.how.param: self.offset}


def paginator(how: Any, identity: list[str] | None) -> Any:
    """What follows the pages in one of the styles of ``Pagination``."""
    from dlt.sources.helpers.rest_client import paginators

    class Link(paginators.JSONLinkPaginator):
        def update_state(self, response: Response, data: list[Any] | None = None) -> None:
            super().update_state(response, data)
            # An empty link is the end, as an absent one is.
            self._next_reference = self._next_reference or None

    match how:
        case PageNumber():
            return paginators.PageNumberPaginator(
                base_page=how.first, page_param=how.param, total_path=how.pages, has_more_path=how.more
            )
        case Offset():
            return OverlappingOffset(how, identity)
        case Cursor():
            return paginators.JSONResponseCursorPaginator(cursor_path=how.next, cursor_param=how.param)
        case NextLink():
            return Link(how.next)
        case LinkHeader():
            return paginators.HeaderLinkPaginator(how.rel)
    return paginators.SinglePagePaginator()


def total(path: str, payload: Any) -> int:
    """The number of records that an answer speaks of."""
    from dlt.common import jsonpath

    found = jsonpath.find_values(path, payload)
    if not found or not str(found[0]).isdigit():
        raise SourceError(f"An answer has no number of records at {path} (`pagination.total` in the YAML).")
    return int(found[0])


def identified(record: Any, identity: list[str] | None) -> Any:
    """What tells a record from others: the values at the names of ``identity``, else all of it."""
    return [at(record, one) for one in identity] if identity and isinstance(record, dict) else record


def at(record: dict[str, Any], name: str) -> Any:
    """The value at a dotted name, None where there is none."""
    value: Any = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
