"""REST against a real server on loopback: every record once, however the API pages and fails; no secret leaks."""

import logging
import random
import socket
import ssl
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from datetime import date, timedelta

import pytest
import requests
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from include.ingest.connectors import SourceError, connector
from include.ingest.connectors.http import HttpConnection, HttpSession, Refused, Unreachable
from include.ingest.extract import extract
from include.ingest.sources import FOLDER, Source
from include.settings import settings
from tests.integration.marketplace_server import CLIENT_SECRET, TOKEN, Api, marketplace, number, serving

FIRST = date(2031, 3, 1)
LAST = FIRST + timedelta(days=2)
FAULTS = frozenset({"throttle", "drop", "error", "truncate"})
STYLES = {
    "cursor": {"by": "cursor", "next": "meta.next_cursor"},
    "next_link": {"by": "next_link", "next": "meta.next"},
    "link_header": {"by": "link_header"},
    "page": {"by": "page", "total": "meta.total"},
    "offset": {"by": "offset", "limit": 50},
}
WINDOW = {"since": "updated_since", "until": "updated_until"}
ORDERS = """
source: shop
type: rest
marketplace: shop
currency: EUR
connection: {}
entities:
  orders:
    read: {path: /v1/orders}
    key: [id]
    cursor: updated_at
    columns:
      id: {required: true}
      total: {type: "numeric(18,4)"}
      updated_at: {type: timestamptz, required: true}
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    for name in ("SHOP_KEY", "MARKETPLACE_API_TOKEN"):
        monkeypatch.setenv(f"EMPORIUM_SECRET_{name}", TOKEN)
    monkeypatch.setenv("EMPORIUM_SECRET_SHOP_CLIENT", CLIENT_SECRET)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def connection(server, **more):
    """A connection that does not wait long."""
    retry = {"first_seconds": 0.001, "max_seconds": 0.01, "max_attempts": 6} | more.pop("retry", {})
    return {"base_url": server.url, "data": "data", "retry": retry, "timeout_seconds": 5} | more


def shop(server, read=None, **more):
    """A source of one entity."""
    text = yaml.safe_load(ORDERS)
    text["connection"] = connection(server, **more)
    text["entities"]["orders"]["read"] |= read or {}
    return Source.model_validate(text)


def the_marketplace(server, style="cursor"):
    """The project's own YAML, at the server."""
    text = yaml.safe_load((FOLDER / "marketplace_api.yaml").read_text())
    auth = text["connection"]["auth"]
    text["connection"] = connection(server, auth=auth, window=WINDOW, pagination=STYLES[style])
    return Source.model_validate(text)


def orders(n, at="2031-03-01T12:00:00Z"):
    return [{"id": f"O{number:03}", "total": number_of(number), "updated_at": at} for number in range(n)]


def number_of(value):
    return number(f"{value}.10")


def rows(source, first=FIRST, last=LAST):
    """id -> how often it is there."""
    found = next(iter(extract(source, first, last)))
    return Counter(found.rows.column(source.entities["orders"].key[0]).to_pylist())


def read_all(source, first=FIRST, last=LAST):
    return {one.entity: one for one in extract(source, first, last)}


@pytest.mark.parametrize("style", STYLES)
def test_every_record_comes_once_in_every_style_through_every_fault(style):
    api = Api(marketplace(FIRST, 3), style=style, faults=FAULTS)
    with serving(api) as server:
        found = read_all(the_marketplace(server, style))
    assert set(api.n_faults) == FAULTS
    for path in ("vendors", "products", "orders", "payments", "shipments", "refunds"):
        entity = found[path].rows
        key = entity.column(entity.column_names[0]).to_pylist()
        assert sorted(key) == sorted(row["id"] for row in api.records[f"/v1/{path}"]), path
    items = found["order_items"].rows.to_pylist()
    assert Counter((one["order_id"], one["line"]) for one in items) == Counter(
        (order["id"], line) for order in api.records["/v1/orders"] for line in ("1", "2")
    )
    assert {one["unit_price"] for one in items} == {f"{n}.10" for n in range(1, 13)}
    removed = {row["id"] for row in api.records["/v1/orders"] if row["deleted_at"]}
    assert removed == {one["order_id"] for one in found["orders"].rows.to_pylist() if one["_deleted"]}
    assert not any(one.unnamed for one in found.values())


def test_a_day_read_alone_and_the_days_together_give_the_same_rows():
    with serving(Api(marketplace(FIRST, 3))) as server:
        source = the_marketplace(server)
        together = [row for one in extract(source, FIRST, LAST) for row in one.rows.to_pylist()]
        alone = [
            row
            for at in range(3)
            for one in extract(source, FIRST + timedelta(days=at), FIRST + timedelta(days=at))
            for row in one.rows.to_pylist()
        ]
    spelled = [sorted(map(repr, found)) for found in (together, alone)]
    assert spelled[0] == spelled[1]


@pytest.mark.parametrize("style", ["cursor", "next_link", "link_header", "page"])
def test_a_page_that_comes_twice_is_there_twice_and_moves_no_line(style):
    pages = {"by": "page"} if style == "page" else STYLES[style]
    api = Api({"/v1/orders": orders(20)}, style=style, auth="none")
    with serving(api) as server:
        once = next(iter(extract(shop(server, pagination=pages), FIRST, LAST))).rows.to_pylist()
        api.repeats_pages = True
        twice = next(iter(extract(shop(server, pagination=pages), FIRST, LAST))).rows.to_pylist()
    assert len(once) == 20
    assert len(twice) == 40
    assert twice[:20] == once
    assert [row["_line"] for row in twice] == list(range(1, 41))


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 25), size=st.integers(2, 9), style=st.sampled_from(sorted(STYLES)), seed=st.integers(0, 99))
def test_no_size_of_page_and_no_order_of_records_changes_what_is_read(served, n, size, style, seed):
    server, api = served
    records = orders(n)
    random.Random(seed).shuffle(records)
    api.records, api.size, api.style = {"/v1/orders": records}, size, style
    found = next(iter(extract(shop(server, pagination=STYLES[style]), FIRST, LAST))).rows.to_pylist()
    assert [(row["id"], row["_line"]) for row in found] == [(f"O{at:03}", at + 1) for at in range(n)]


@pytest.fixture(scope="module")
def served():
    api = Api({}, auth="none")
    with serving(api) as server:
        yield server, api


def _removes_the_first(api, path, page):
    if page == 1 and len(api.records[path]) == 30:
        del api.records[path][0]


def _inserts_before(api, path, page):
    if page == 1 and len(api.records[path]) == 30:
        api.records[path].insert(0, orders(1, "2031-03-01T01:00:00Z")[0] | {"id": "O999"})


@pytest.mark.parametrize("happening", [_removes_the_first, _inserts_before])
@pytest.mark.parametrize("pages", [{"by": "offset", "limit": 7}, {"by": "page", "total": "meta.total"}])
def test_records_that_move_from_page_to_page_while_they_are_read_are_not_lost(pages, happening):
    api = Api({"/v1/orders": orders(30)}, style=pages["by"], auth="none", on_page=happening)
    with serving(api) as server:
        found = rows(shop(server, pagination=pages))
    assert found == Counter(row["id"] for row in api.records["/v1/orders"])


def test_records_that_never_stand_still_are_an_error():
    api = Api(
        {"/v1/orders": orders(300)}, style="offset", auth="none", on_page=lambda api, path, _: api.records[path].pop(0)
    )
    with serving(api) as server, pytest.raises(SourceError, match="move from page to page"):
        rows(shop(server, pagination={"by": "offset", "limit": 7}))


def test_a_server_that_gives_fewer_than_asked_for_is_followed_by_what_it_gives():
    api = Api({"/v1/orders": orders(30)}, style="offset", auth="none", size=4)
    with serving(api) as server:
        assert len(rows(shop(server, pagination={"by": "offset", "limit": 100}))) == 30


@pytest.mark.parametrize("style", ["cursor", "next_link", "link_header"])
def test_pages_that_go_round_in_circles_are_an_error(style):
    api = Api({"/v1/orders": orders(30)}, style=style, auth="none", loops=True)
    with serving(api) as server, pytest.raises(SourceError, match="/v1/orders leads back to a page that was read"):
        rows(shop(server, pagination=STYLES[style]))
    assert api.n_requests <= 3


def test_an_api_that_ignores_the_page_number_is_an_error():
    api = Api({"/v1/orders": orders(3)}, style="cursor", auth="none")
    with serving(api) as server, pytest.raises(SourceError, match="answers the same page again and again"):
        rows(shop(server, pagination={"by": "page"}))
    assert api.n_requests <= 5


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_no_row_at_midnight_is_lost_however_the_api_reads_since(is_exclusive):
    records = [
        {"id": name, "updated_at": at}
        for name, at in {
            "before": "2031-02-28T23:59:59.5Z",
            "first": "2031-03-01T00:00:00Z",
            "last": "2031-03-01T23:59:59.999999Z",
            "after": "2031-03-02T00:00:00Z",
        }.items()
    ]
    api = Api({"/v1/orders": records}, auth="none", is_since_exclusive=is_exclusive)
    with serving(api) as server:
        assert set(rows(shop(server, window=WINDOW), FIRST, FIRST)) == {"first", "last"}


@pytest.mark.parametrize(
    ("how", "zone", "since", "until"),
    [
        ("iso", "UTC", "2031-02-28T23:59:59Z", "2031-03-02T00:00:01Z"),
        ("epoch", "UTC", "1930089599", "1930176001"),
        ("epoch_ms", "UTC", "1930089599000", "1930176001000"),
        ("date", "America/New_York", "2031-02-27", "2031-03-02"),
        ("%Y%m%d%H%M", "Asia/Tokyo", "203102280900", "203103030900"),
    ],
)
def test_since_and_until_are_spelled_as_the_api_wants_them(how, zone, since, until):
    api = Api({"/v1/orders": []}, auth="none")
    with serving(api) as server:
        source = shop(server, window={**WINDOW, "format": how}).model_copy(update={"time_zone": zone})
        rows(source, FIRST, FIRST)
    query = api.seen[0][1]
    assert (query["updated_since"], query["updated_until"]) == (since, until)


def test_times_counted_since_1970_are_read():
    records = [{"id": "a", "updated_at": number("1930093200")}, {"id": "b", "updated_at": number("-1")}]
    with serving(Api({"/v1/orders": records}, auth="none")) as server:
        found = next(iter(extract(shop(server, {"epoch_seconds": ["updated_at"]}), FIRST, LAST))).rows.to_pylist()
    assert {row["id"]: row["updated_at"] for row in found} == {"a": "2031-03-01T01:00:00Z", "b": "-1"}


# --- what an answer holds ------------------------------------------------------------------------


def test_numbers_and_nested_records_arrive_as_they_are_spelled():
    digits = "9" * 400
    record = {
        "id": number("12345678901234567890"), "total": number(digits), "updated_at": "2031-03-01T01:00:00Z",
        "small": number("0.10"), "huge": number("1e400"), "not": number("NaN"), "is_gift": True, "empty": "",
        "none": None, "customer": {"address": {"city": "Köln"}}, "tags": ["a", {"n": number("1.50")}],
    }  # fmt: skip
    with serving(Api({"/v1/orders": [record]}, auth="none")) as server:
        found = next(iter(extract(shop(server), FIRST, LAST)))
    row = found.rows.to_pylist()[0]
    assert (row["id"], row["total"]) == ("12345678901234567890", digits)
    assert found.extra.to_pylist() == [
        {
            "small": "0.10", "huge": "1e400", "not": "NaN", "is_gift": "true", "empty": None, "none": None,
            "customer.address.city": "Köln", "tags": '["a", {"n": 1.50}]',
        }
    ]  # fmt: skip
    assert set(found.unnamed) == set(found.extra.column_names)


def test_what_is_no_record_is_set_aside_with_its_text_and_the_rest_arrives():
    good = b'{"id": "%s", "updated_at": "2031-03-01T01:00:00Z"}'
    body = b", ".join(
        [
            good % b"A", b'"a line"', b"[1, 2]", b"null", good % b"nul\\u0000", good % b"b\xff\xfe", good % b"\\ud800",
            good % b"B", b'{"id": "mail me@example.org \\u0000"}',
        ]
    )  # fmt: skip
    api = Api({}, auth="none", raw={"/v1/orders": b'{"data": [' + body + b"]}"})
    with serving(api) as server:
        found = next(iter(extract(shop(server), FIRST, FIRST)))
    good_rows = [row for row in found.rows.to_pylist() if row["_error"] is None]
    assert [(row["id"], row["_file"], row["_line"]) for row in good_rows] == [
        ("A", "/v1/orders", 1),
        ("B", "/v1/orders", 2),
    ]
    broken = {(one.file, one.line): (one.error, one.text) for one in found.broken}
    assert len(broken) == 7
    assert broken.keys() == {(row["_file"], row["_line"]) for row in found.rows.to_pylist() if row["_error"]}
    assert Counter(error for error, _ in broken.values()) == {
        "not a JSON object": 3,
        "holds a NUL": 2,
        "not UTF-8 text": 2,
    }
    assert "me@example.org" not in str(broken)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'"hello"', "answers neither a JSON object nor a list"),
        (b'{"orders": [], "count": 0}', "has no data .*it has: count, orders"),
        (b'{"data": [', "cut off, or no JSON"),
        (b"<html>", "cut off, or no JSON"),
        (b"[" * 100_000, "cut off, or no JSON"),
    ],
)
def test_an_answer_of_the_wrong_shape_is_one_sentence(body, said):
    with (
        serving(Api({}, auth="none", raw={"/v1/orders": body})) as server,
        pytest.raises(SourceError, match=said),
    ):
        rows(shop(server))


def test_pages_that_do_not_say_what_the_yaml_promises_quote_nobody():
    records = [{"id": "x", "email": "ann@example.org", "updated_at": "2031-03-01T01:00:00Z"}]
    with serving(Api({"/v1/orders": records}, auth="none")) as server, pytest.raises(SourceError) as error:
        rows(shop(server, pagination={"by": "page", "pages": "meta.pages"}))
    assert str(error.value) == "shop: /v1/orders does not page as `pagination: {by: page}` says."


def test_the_api_says_what_it_has():
    with serving(Api(marketplace(FIRST, 1))) as server, connector(the_marketplace(server)) as reader:
        found = {name: {one.name: one for one in columns} for name, columns in reader.discover().items()}
    assert set(found) == set(the_marketplace(server).entities)
    kinds = {name: one.type for name, one in found["orders"].items()}
    assert kinds["totals.grand"] == "numeric(18,4)"
    assert kinds["updated_at"] == "timestamptz"
    assert kinds["customer.email"] == "text"
    assert kinds["deleted_at"] == "timestamptz", "all null, as the YAML says"
    assert "items" not in kinds
    assert found["orders"]["id"].is_key
    assert found["order_items"]["line"].type == "integer"
    assert "order_updated_at" in found["order_items"]


def test_all_keys_are_listed_whatever_the_day():
    with serving(Api(marketplace(FIRST, 3))) as server, connector(the_marketplace(server)) as reader:
        assert reader.keys("vendors").to_pydict() == {"vendor_id": ["V0", "V1", "V2"]}
        assert reader.keys("order_items").num_rows == 120


# --- secrets and manners -------------------------------------------------------------------------

AUTHS = {
    "bearer": {"type": "bearer", "secret": "shop_key"},
    "header": {"type": "api_key", "name": "X-Shop-Key", "in": "header", "secret": "shop_key"},
    "query": {"type": "api_key", "name": "key", "in": "query", "secret": "shop_key"},
    "basic": {"type": "basic", "user": "emporium", "secret": "shop_key"},
}


def oauth2(server):
    return {"type": "oauth2", "token_url": f"{server.url}/token", "client_id": "emporium", "secret": "shop_client"}


@pytest.mark.parametrize("how", AUTHS)
def test_each_way_to_log_in_works_and_a_wrong_key_is_named_not_shown(how, monkeypatch):
    with serving(Api({"/v1/orders": orders(20)}, auth=how)) as server:
        source = shop(server, auth=AUTHS[how], pagination=STYLES["cursor"])
        assert len(rows(source)) == 20
        monkeypatch.setenv("EMPORIUM_SECRET_SHOP_KEY", "wrong-key-0815")
        with pytest.raises(SourceError, match="answers 401: check the secret shop_key") as error:
            rows(source)
        assert "wrong-key-0815" not in str(error.value)
        monkeypatch.delenv("EMPORIUM_SECRET_SHOP_KEY")
        with pytest.raises(ValueError, match="EMPORIUM_SECRET_SHOP_KEY"):
            rows(source)


def test_client_credentials_bring_a_token_which_is_used_for_all_pages():
    api = Api({"/v1/orders": orders(20)}, auth="bearer")
    with serving(api) as server:
        assert len(rows(shop(server, auth=oauth2(server), pagination=STYLES["cursor"]))) == 20
    assert sum(path == "/token" for path, *_ in api.seen) == 1


@pytest.mark.parametrize("how", [*AUTHS, "oauth2"])
@pytest.mark.parametrize("trouble", ["error", "throttle", "drop", "truncate", "down", "refused", "denied"])
def test_no_error_and_no_log_holds_a_secret(how, trouble, caplog):
    caplog.set_level(logging.DEBUG)
    api = Api({"/v1/orders": orders(1)}, auth="bearer" if how == "oauth2" else how)
    with serving(api) as server:
        auth = oauth2(server) if how == "oauth2" else AUTHS[how]
        source = shop(server, auth=auth, retry={"max_attempts": 2})
        if trouble == "refused":
            api.records = {}
        elif trouble == "denied":
            api.auth = "header" if how != "header" else "bearer"
        elif trouble != "down":
            api.fault = lambda: trouble
        if trouble != "down":
            with pytest.raises(SourceError) as error:
                rows(source)
    if trouble == "down":
        with pytest.raises(SourceError) as error:
            rows(source)
    seen = [str(error.value), repr(error.value.__cause__), *(record.getMessage() for record in caplog.records)]
    seen += [str(record.args) for record in caplog.records]
    for secret in (TOKEN, CLIENT_SECRET):
        assert not [text for text in seen if secret in text]
    assert error.value.__cause__ is None


def test_a_secret_is_hidden_however_it_is_spelled_and_a_refusal_names_nobody():
    secret = "a+b/c=d e"
    forms = [secret, "a%2Bb/c%3Dd%20e", "a%2Bb%2Fc%3Dd%20e", "a%2Bb%2Fc%3Dd+e"]
    with HttpSession("shop", HttpConnection(base_url="http://shop.test")) as session:
        session.secrets.append(secret)
        assert session.redacted(f"key={'&key='.join(forms)}") == "key=***&key=***&key=***&key=***"
        answer = requests.Response()
        answer.status_code, answer._content = 422, f"no {forms[3]} for ann@example.org ".encode() * 20
        with pytest.raises(Refused, match=r"answers 422: no \*\*\* for \*\*\*@\*\*\* no") as error:
            session._check_status(answer, "http://shop.test/v1")
    assert "example" not in str(error.value)


@pytest.mark.parametrize("how", ["bearer", "header", "basic", "oauth2"])
def test_a_redirect_to_another_host_carries_no_secret(how):
    api = Api({"/v1/orders": orders(3)}, auth="bearer" if how == "oauth2" else how)
    other = Api({"/v1/orders": orders(3)}, auth="none")
    with serving(api) as server, serving(other) as elsewhere:
        source = shop(server, auth=oauth2(server) if how == "oauth2" else AUTHS[how])
        api.redirect_to = elsewhere.url.replace("127.0.0.1", "localhost")
        assert len(rows(source)) == 3
    assert other.seen
    assert TOKEN not in str(other.seen)
    assert CLIENT_SECRET not in str(other.seen)


def test_a_link_to_another_host_is_not_followed():
    other = Api({"/v1/orders": orders(3)}, auth="none")
    with serving(other) as elsewhere:
        api = Api(
            {"/v1/orders": orders(30)}, style="next_link", link_host=elsewhere.url.replace("127.0.0.1", "localhost")
        )
        with serving(api) as server, pytest.raises(SourceError, match="sends us on to http://localhost"):
            rows(shop(server, auth=AUTHS["bearer"], pagination=STYLES["next_link"]))
    assert not other.seen


def test_a_certificate_that_nobody_signed_is_refused_at_once(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
         "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")],
        check=True, capture_output=True,
    )  # fmt: skip
    with serving(Api({"/v1/orders": orders(1)}, auth="bearer")) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = server.url.replace("http:", "https:")
        with pytest.raises(SourceError, match="has no certificate that we trust"):
            rows(shop(server, auth=AUTHS["bearer"]))
        assert not server.api.seen


def test_retry_after_is_waited_for_and_too_long_a_wait_ends_the_attempt():
    api = Api({"/v1/orders": orders(3)}, auth="none", faults=frozenset({"throttle"}), retry_after="1")
    with serving(api) as server:
        source = shop(server, pagination=STYLES["cursor"])
        api.n_requests = 1
        started = time.monotonic()
        assert len(rows(source)) == 3
        assert time.monotonic() - started >= 1
        api.n_requests, api.retry_after = 1, "3600"
        with pytest.raises(Unreachable, match="wants 3600 s of silence"):
            rows(source)


def test_attempts_end():
    api = Api({"/v1/orders": orders(3)}, auth="none")
    api.fault = lambda: "error"
    with serving(api) as server, pytest.raises(Unreachable, match=r"answers 500 \(3 attempts\)"):
        rows(shop(server, retry={"max_attempts": 3}))
    assert len(api.seen) == 3


def test_an_api_that_says_nothing_is_not_waited_for_forever():
    with socket.socket() as mute, ExitStack() as stack:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        server = stack.enter_context(serving(Api({})))
        server.url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"is silent for 0\.2 s"):
            rows(shop(server, timeout_seconds=0.2, retry={"max_attempts": 2}))


def test_requests_keep_the_pace():
    api = Api({"/v1/orders": orders(70)}, auth="none")
    with serving(api) as server:
        started = time.monotonic()
        rows(shop(server, pagination=STYLES["cursor"], requests_per_second=20))
        assert len(api.seen) == 10
        assert time.monotonic() - started >= 0.45


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("base_url", "ftp://shop.example", "connection.base_url"),
        ("base_url", "https://me:pw@shop.example", "connection.base_url"),
        ("base_url", None, "say one of `base_url` and `base_url_secret`"),
        ("auth", {"type": "bearer", "secret": "My Token!"}, "connection.auth.bearer.secret"),
        ("auth", {"type": "magic"}, "connection.auth"),
        ("pagination", {"by": "luck"}, "connection.pagination"),
        ("pagination", {"by": "cursor"}, "connection.pagination.cursor.next"),
        ("window", {"since": "s", "format": "roman"}, "connection.window.format: is one of"),
    ],
)
def test_a_wrong_yaml_names_the_setting(where, value, said):
    text = yaml.safe_load(ORDERS)
    text["connection"] = {"base_url": "https://shop.example", where: value}
    if value is None:
        del text["connection"]["base_url"]
    with pytest.raises(ValueError, match=said):
        Source.model_validate(text)
