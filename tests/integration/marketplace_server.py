"""A small real HTTP server on loopback: a marketplace's API with every habit that makes APIs hard to read.

It pages in every style, wants a key, throttles, drops connections, answers 500, cuts JSON off, repeats pages and lets
records move while they are read. What happens when is fixed by the number of the request, never by chance.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from include.dates import start_of

TOKEN = "tok-3f9c1d"
CLIENT_SECRET = "client-hush-77"


def number(text: str) -> str:
    """A number that the answer holds exactly as spelled here."""
    return f"#{text}#"


def as_json(value: Any) -> str:
    """``value`` as the server sends it."""
    return re.sub(r'"#([^"#]+)#"', r"\1", json.dumps(value))


@dataclass
class Api:
    """What the server holds and how it behaves; a test changes it between requests."""

    records: dict[str, list[Any]]
    style: str = "cursor"
    size: int = 7
    auth: str = "bearer"
    faults: frozenset[str] = frozenset()
    is_since_exclusive: bool = False
    repeats_pages: bool = False
    loops: bool = False
    """The token of the next page is that of this one."""
    retry_after: str = "0"
    redirect_to: str | None = None
    link_host: str | None = None
    on_page: Any = None
    """Called with (api, path, number of the page) after each page: the shop lives on while it is read."""
    raw: dict[str, bytes] = field(default_factory=dict)
    """Path -> a body sent as it is."""
    seen: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    """(path, query, headers) of every request."""
    n_faults: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    n_requests: int = 0

    def fault(self) -> str | None:
        """What goes wrong with this request: every second one, in turn, of what may."""
        self.n_requests += 1
        if not self.faults or self.n_requests % 2:
            return None
        chosen = sorted(self.faults)[self.n_requests // 2 % len(self.faults)]
        self.n_faults[chosen] += 1
        return chosen


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without these every answer waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        api = self.server.api
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        api.seen.append((self.path, {name: values[0] for name, values in form.items()}, dict(self.headers)))
        is_known = form.get("client_secret") == [CLIENT_SECRET] and form.get("client_id") == ["emporium"]
        if not is_known:
            return self._send(401, b'{"error": "invalid_client"}')
        return self._send(200, json.dumps({"access_token": TOKEN, "expires_in": 3600}).encode())

    def do_GET(self) -> None:
        api = self.server.api
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        api.seen.append((parts.path, query, dict(self.headers)))
        if api.redirect_to:
            return self._send(302, b"", {"Location": api.redirect_to + self.path})
        if not self._is_let_in(query):
            return self._send(401, json.dumps({"error": f"no such key: {dict(self.headers)} {query}"}).encode())
        fault = api.fault()
        if fault == "throttle":
            return self._send(429, b"{}", {"Retry-After": api.retry_after})
        if fault == "error":
            return self._send(500, b"<html>oops</html>")
        if parts.path in api.raw:
            body, headers = api.raw[parts.path], {}
        elif parts.path in api.records:
            payload, headers = self._page(parts.path, query)
            body = as_json(payload).encode()
        else:
            return self._send(404, b'{"error": "no such thing"}')
        if fault == "drop":
            self._send(200, body[: len(body) // 2], headers | {"Content-Length": str(len(body))})
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if fault == "truncate":
            body = body[: len(body) // 2]
        return self._send(200, body, headers)

    def _is_let_in(self, query: dict[str, str]) -> bool:
        basic = base64.b64encode(f"emporium:{TOKEN}".encode()).decode()
        return {
            "none": True,
            "bearer": self.headers.get("Authorization") == f"Bearer {TOKEN}",
            "header": self.headers.get("X-Shop-Key") == TOKEN,
            "query": query.get("key") == TOKEN,
            "basic": self.headers.get("Authorization") == f"Basic {basic}",
        }[self.server.api.auth]

    def _page(self, path: str, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
        api = self.server.api
        rows = api.records[path]
        if query.get("updated_since"):
            is_new = str.__gt__ if api.is_since_exclusive else str.__ge__
            rows = [row for row in rows if is_new(str(_changed(row)), query["updated_since"])]
        if query.get("updated_until"):
            rows = [row for row in rows if str(_changed(row)) < query["updated_until"]]
        rows = sorted(rows, key=lambda row: str(_changed(row)))
        size = min(api.size, int(query.get("limit", api.size)))
        at = self._start(query, size)
        token = query.get("cursor", "0")
        page = rows[at : at + size]
        headers: dict[str, str] = {}
        meta: dict[str, Any] = {"total": len(rows), "next_cursor": None, "next": None}
        following = f"{at + size}"
        if api.repeats_pages and "r" not in token:
            following = f"{at}r"
        if at + size < len(rows) or (api.repeats_pages and "r" not in token and page):
            if api.loops:
                following = token
            meta["next_cursor"] = following
            address = f"{api.link_host or self.server.url}{path}?{urlencode({**query, 'cursor': following})}"
            if api.style == "next_link":
                meta["next"] = address
            if api.style == "link_header":
                headers["Link"] = f'<{address}>; rel="next", <{self.server.url}{path}>; rel="first"'
        if api.on_page:
            api.on_page(api, path, at // size)
        return {"data": page, "meta": meta}, headers

    def _start(self, query: dict[str, str], size: int) -> int:
        api = self.server.api
        if api.style == "offset":
            return int(query["offset"])
        if api.style == "page":
            page = int(query["page"]) - 1
            return (page // 2 if api.repeats_pages else page) * size
        return int(query.get("cursor", "0").rstrip("r"))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _changed(row: Any) -> Any:
    return row.get("updated_at", "") if isinstance(row, dict) else "2031-03-01T12:00:00Z"


class Server(ThreadingHTTPServer):
    """The API at ``url``."""

    daemon_threads = True

    def __init__(self, api: Api) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(api: Api) -> Iterator[Server]:
    """A server of ``api`` as long as the block runs."""
    server = Server(api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def marketplace(first: date, n_days: int, n_orders: int = 20) -> dict[str, list[Any]]:
    """Records of a marketplace that changed on ``first`` and the days after, ``n_orders`` of them each day.

    On each day but the first one order is removed. Several orders carry the same time.
    """
    made: dict[str, list[Any]] = {
        f"/v1/{name}": [] for name in ("vendors", "products", "orders", "payments", "shipments", "refunds")
    }

    def stamp(day: int, minute: int) -> str:
        moment = start_of(first) + timedelta(days=day, minutes=minute)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    for at in range(3):
        made["/v1/vendors"].append(
            {
                "id": f"V{at}", "name": f"Vendor {at}", "address": {"region": "North"}, "status": "open",
                "created_at": stamp(0, 0), "updated_at": stamp(0, at), "deleted_at": None,
            }
        )  # fmt: skip
    for at in range(12):
        made["/v1/products"].append(
            {
                "id": f"P{at}", "vendor_id": f"V{at % 3}", "title": f"Thing {at}", "category": {"name": "Things"},
                "price": {"amount": number(f"{at + 1}.10"), "currency": "EUR"},
                "updated_at": stamp(0, at), "deleted_at": None,
            }
        )  # fmt: skip
    for day in range(n_days):
        for n in range(n_orders):
            order, minute = f"O{day}-{n}", n // 4 * 60
            total = number(f"{2 * (n % 12 + 1)}.30")
            made["/v1/orders"].append(
                {
                    "id": order, "number": number(str(day * 1000 + n)), "placed_at": stamp(day, minute),
                    "confirmed_at": stamp(day, minute), "status": "confirmed", "currency": "EUR",
                    "customer": {"email": f"buyer{n}@example.org", "region": "South", "phone": "1", "name": "B"},
                    "totals": {"grand": total},
                    "items": [
                        {
                            "line": number(str(line)), "product_id": f"P{n % 12}", "vendor_id": f"V{n % 3}",
                            "quantity": number("1"), "unit_price": number(f"{n % 12 + 1}.10"),
                            "shipping": number("0.05"),
                        }
                        for line in (1, 2)
                    ],
                    "updated_at": stamp(day, minute),
                    "deleted_at": stamp(day, minute) if day and n == 3 else None,
                }
            )  # fmt: skip
            made["/v1/payments"].append(
                {
                    "id": f"Y{order}", "order_id": order, "method": "card", "installments": number("1"),
                    "amount": total, "currency": "EUR", "paid_at": stamp(day, minute),
                    "updated_at": stamp(day, minute), "deleted_at": None,
                }
            )  # fmt: skip
            for part in range(2):
                made["/v1/shipments"].append(
                    {
                        "id": f"S{order}-{part}", "order_id": order, "vendor_id": f"V{part}",
                        "shipped_at": stamp(day, minute + 30), "delivered_at": stamp(day, minute + 60 * part + 60),
                        "promised_at": stamp(day + 2, 0), "updated_at": stamp(day, minute), "deleted_at": None,
                    }
                )  # fmt: skip
        made["/v1/refunds"].append(
            {
                "id": f"R{day}", "order_id": f"O{day}-0", "payment_id": f"YO{day}-0", "reason": "late",
                "amount": number("1.00"), "refunded_at": stamp(day, 100), "updated_at": stamp(day, 100),
                "deleted_at": None,
            }
        )  # fmt: skip
    return made
