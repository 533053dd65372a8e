"""The marketplace's API through land, gate and load: what is in raw is what the server has, however it behaves."""

import os
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal

import pytest
import yaml

from expectations.raw import gate
from include.dates import days
from include.ingest import bronze
from include.ingest.land import land
from include.ingest.load import load
from include.ingest.pseudonym import pseudonym
from include.ingest.sources import FOLDER, Source, load_source
from include.ingest.tables import prepare
from include.settings import settings
from include.warehouse.engine import connect
from tests.integration.marketplace_server import TOKEN, Api, marketplace, serving

pytestmark = pytest.mark.integration

FIRST = date(2031, 3, 1)
LAST = FIRST + timedelta(days=2)
STYLES = {
    "cursor": {"by": "cursor", "next": "meta.next_cursor"},
    "next_link": {"by": "next_link", "next": "meta.next"},
    "link_header": {"by": "link_header"},
    "page": {"by": "page", "total": "meta.total"},
    "offset": {"by": "offset", "limit": 50},
    "none": {"by": "none"},
}
FAULTS = frozenset({"throttle", "drop", "error", "truncate"})


@pytest.fixture(scope="module")
def lake(warehouse, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rest") / "lake"
    os.environ["EMPORIUM_LAKE"] = str(folder)
    os.environ["EMPORIUM_SECRET_MARKETPLACE_API_TOKEN"] = TOKEN
    settings.cache_clear()
    prepare()
    _empty()
    yield folder
    _empty()
    del os.environ["EMPORIUM_LAKE"], os.environ["EMPORIUM_SECRET_MARKETPLACE_API_TOKEN"]
    settings.cache_clear()


def _empty():
    with connect() as conn:
        for name in (*load_source("marketplace_api").entities, "_landed"):
            conn.execute(f'truncate raw_marketplace_api."{name}"')
        conn.execute("delete from ops.load_audit where source = 'marketplace_api'")
        conn.execute("delete from ops.quality_result where target like 'marketplace_api.%%'")


def _query(text, *values):
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def _source(server, style):
    """The project's YAML; only the address, the style of the pages and the patience are the server's."""
    text = yaml.safe_load((FOLDER / "marketplace_api.yaml").read_text())
    text["connection"] |= {
        "pagination": STYLES[style],
        "requests_per_second": 1000,
        "retry": {"first_seconds": 0.001, "max_seconds": 0.01},
    }
    os.environ["EMPORIUM_SECRET_MARKETPLACE_API_URL"] = server.url
    return Source.model_validate(text)


def _load(source, first=FIRST, last=LAST):
    list(land(source, first, last))
    assert gate(source, first, last) == []
    return {one.entity: one for one in load(source, first, last)}


def _raw():
    found = {}
    for name, entity in load_source("marketplace_api").entities.items():
        columns = ", ".join([*entity.columns, "partition_on", "known_at", "_deleted"])
        found[name] = _query(f"select {columns} from raw_marketplace_api.{name} order by 1, 2")
    return found


def _digests(source):
    return {name: bronze.batches(source.source, name, FIRST, LAST) for name in source.entities}


def test_raw_is_what_the_server_has_in_every_style_and_through_every_fault(lake):
    records = marketplace(FIRST, 3)
    raw, digests = {}, {}
    n_faults = defaultdict(int)
    for style in STYLES:
        _empty()
        api = Api(records, style=style, faults=FAULTS, size=1000 if style == "none" else 7)
        with serving(api) as server:
            source = _source(server, style)
            loaded = _load(source)
        raw[style], digests[style] = _raw(), _digests(source)
        for fault, n in api.n_faults.items():
            n_faults[fault] += n
        assert all(one.n_in == one.n_loaded for one in loaded.values())
    assert set(n_faults) == FAULTS
    assert all(one == raw["cursor"] for one in raw.values())
    assert all(one == digests["cursor"] for one in digests.values())

    people = {row["id"]: row["customer"] for row in records["/v1/orders"]}
    assert _query("select order_id, customer_email, customer_region from raw_marketplace_api.orders order by 1") == [
        (order, pseudonym("email", people[order]["email"]), "South") for order in sorted(people)
    ]
    assert _query("select order_id from raw_marketplace_api.orders where _deleted order by 1") == [("O1-3",), ("O2-3",)]
    money = "select sum(quantity * unit_price), sum(shipping), count(*) from raw_marketplace_api.order_items"
    prices = [Decimal(item["unit_price"].strip("#")) for order in records["/v1/orders"] for item in order["items"]]
    assert _query(money) == [(sum(prices), Decimal("0.05") * len(prices), len(prices))]
    for name in ("payments", "shipments", "refunds", "vendors", "products"):
        assert _query(f"select count(*) from raw_marketplace_api.{name}") == [(len(records[f"/v1/{name}"]),)]


def test_a_rerun_gives_the_same_batch_whatever_the_pages(lake):
    _empty()
    api = Api(marketplace(FIRST, 3), style="cursor", faults=FAULTS)
    with serving(api) as server:
        source = _source(server, "cursor")
        _load(source)
        raw, digests = _raw(), _digests(source)
        assert all(set(one) == set(days(FIRST, LAST)) for name, one in digests.items() if name == "orders")
        api.size = 4
        for day in (LAST, FIRST):
            _load(source, day, day)
        assert (_raw(), _digests(source)) == (raw, digests)


def test_pages_that_come_twice_are_counted_as_duplicates_and_change_no_table(lake):
    _empty()
    api = Api(marketplace(FIRST, 3), style="cursor")
    with serving(api) as server:
        source = _source(server, "cursor")
        before = _load(source)
        raw = _raw()
        api.repeats_pages = True
        after = _load(source)
    assert _raw() == raw
    assert {name: one.n_duplicate for name, one in after.items()} == {name: one.n_in for name, one in before.items()}


def test_a_removed_order_is_gone_by_a_tombstone_on_the_day_on_which_it_was_removed(lake):
    _empty()
    api = Api(marketplace(FIRST, 1))
    with serving(api) as server:
        source = _source(server, "cursor")
        _load(source, FIRST, FIRST)
        order = api.records["/v1/orders"][0]
        order |= {"updated_at": "2031-03-02T08:00:00Z", "deleted_at": "2031-03-02T08:00:00Z"}
        _load(source, FIRST + timedelta(days=1), FIRST + timedelta(days=1))
    versions = "select partition_on, _deleted from raw_marketplace_api.{} where order_id = %s order by 1"
    for name, n in (("orders", 1), ("order_items", 2)):
        found = _query(versions.format(name), order["id"])
        assert found == [(FIRST, False)] * n + [(FIRST + timedelta(days=1), True)] * n


def test_an_api_that_is_down_leaves_everything_as_it_was(lake):
    _empty()
    api = Api(marketplace(FIRST, 3))
    with serving(api) as server:
        source = _source(server, "cursor")
        _load(source)
        raw, digests = _raw(), _digests(source)
    with pytest.raises(ValueError, match="cannot be reached"):
        list(land(source, FIRST, LAST))
    assert (_raw(), _digests(source)) == (raw, digests)
