"""OpenCart for real, 3.0 to 4.1 on MariaDB: landed, gated, loaded and staged, and recounted from what was put in."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from expectations.raw import main as gate
from include import dbt
from include.ingest.__main__ import main as ingest
from include.ingest.extract import extract
from include.ingest.pseudonym import pseudonym
from include.ingest.sources import load_source
from include.settings import settings
from include.warehouse.engine import connect
from tests.integration.mariadb import MariaDB
from tests.integration.opencart_shop import CURRENCIES, FIRST, LAST, STATUSES, Shop, has_schema

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(has_schema() is None, reason="OpenCart's schema is not in ../shared/data/opencart"),
]

BERLIN = ZoneInfo("Europe/Berlin")
NEXT = LAST + timedelta(days=1)
# With what staging looks up in tables of its own.
STAGING = ["--select", "staging.opencart", "int_*__opencart"]


def query(text: str) -> list[tuple]:
    with connect() as conn:
        return conn.execute(text).fetchall()


def utc(local: datetime) -> datetime:
    return local.replace(tzinfo=BERLIN).astimezone(UTC)


def take(first: date, last: date) -> None:
    """Land, gate and load."""
    for command, run in (("land", ingest), ("", gate), ("load", ingest)):
        arguments = ["--source", "opencart", "--as-of", str(last), "--from", str(first)]
        assert run([command, *arguments] if command else arguments) == 0, command


def empty() -> None:
    with connect() as conn:
        for name in (*load_source("opencart").entities, "_landed"):
            conn.execute(f'truncate raw_opencart."{name}"')
            if name != "_landed":
                conn.execute(f"delete from quarantine.\"{name}\" where source = 'opencart'")
        conn.execute("delete from ops.load_audit where source = 'opencart'")


@pytest.fixture(scope="module")
def shops(mariadb: MariaDB) -> dict[str, Shop]:
    """The same shop in three versions of OpenCart, databases shop30, shop40, shop41."""
    made = {version: Shop(version) for version in ("3.0", "4.0", "4.1")}
    for version, shop in made.items():
        shop.create(mariadb, database(version))
    return made


def database(version: str) -> str:
    return f"shop{version.replace('.', '')}"


@pytest.fixture
def read(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch):
    """Reads the shop of a version: entity -> rows."""

    def rows(version: str, first: date = FIRST, last: date = LAST) -> dict[str, list[dict[str, Any]]]:
        monkeypatch.setenv("EMPORIUM_SECRET_OPENCART_DSN", mariadb.dsn(database(version)))
        return {one.entity: one.rows.to_pylist() for one in extract(load_source("opencart"), first, last)}

    return rows


VERSIONED = {"_file", "payment_method", "payment_code", "sku", "identifier_id"}


def test_one_yaml_reads_3_0_and_4_0_and_4_1_alike(shops: dict[str, Shop], read, warehouse) -> None:
    expected = read("4.0")
    for version in ("3.0", "4.1"):
        found = read(version)
        for entity, rows in expected.items():
            if entity in ("oc_product_code", "oc_identifier"):
                continue
            assert len(rows) >= len(shops["4.0"].rows.get(entity.removeprefix("oc_"), ())), entity
            alike = [[{name: row[name] or None for name in row if name not in VERSIONED} for row in side]
                     for side in (found[entity], rows)]  # fmt: skip
            # Where 4.0 has zero by default, 4.1 has nothing.
            for got, wanted in zip(*alike, strict=True):
                for name in got:
                    assert got[name] == wanted[name] or {got[name], wanted[name]} <= {None, "0", "0.0000"}, (
                        entity,
                        name,
                    )
    assert {row["payment_code"] for row in read("3.0")["oc_order"]} == {"cod"}
    assert {row["value"] for row in read("4.1")["oc_product_code"]} >= {"SKU-1", "SKU-40"}


def test_no_column_of_any_version_is_unheard_of(
    shops: dict[str, Shop], mariadb: MariaDB, warehouse, monkeypatch
) -> None:
    for version in shops:
        monkeypatch.setenv("EMPORIUM_SECRET_OPENCART_DSN", mariadb.dsn(database(version)))
        for one in extract(load_source("opencart"), FIRST, LAST):
            assert one.unnamed == (), (version, one.entity)


def test_what_names_a_person_is_never_read(shops: dict[str, Shop], read, warehouse) -> None:
    found = read("4.0")
    text = str(found)
    for secret in ("example.org", "Ann", "call me", "broken", "hash", "For my"):
        assert secret not in text, secret
    assert found["oc_order"][0]["email"] == pseudonym("email", Shop.email(2))


def test_a_day_cannot_be_told_from_how_often_it_was_read(shops: dict[str, Shop], read, warehouse) -> None:
    whole = read("4.0")
    for day in (FIRST, date(2024, 3, 31), LAST):
        alone = read("4.0", day, day)
        for entity in ("oc_order", "oc_order_product", "oc_order_history"):
            kept = [row for row in whole[entity] if row["partition_on"] == day]
            assert kept
            assert alone[entity] == kept


@pytest.fixture(scope="module")
def loaded(shops: dict[str, Shop], mariadb: MariaDB, warehouse, tmp_path_factory) -> Iterator[dict[str, Any]]:
    """4.1 loaded up to LAST, changed by hands and scripts on the day after, and loaded again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_LAKE", str(tmp_path_factory.mktemp("opencart") / "lake"))
        patch.setenv("EMPORIUM_SECRET_OPENCART_DSN", mariadb.dsn(database("4.1")))
        settings.cache_clear()
        assert ingest(["prepare"]) == 0
        empty()
        shop = shops["4.1"]
        before = {name: [dict(row) for row in rows] for name, rows in shop.rows.items()}
        take(FIRST, LAST)
        changes = change(shop, mariadb, database("4.1"))
        take(NEXT, NEXT)
        assert dbt.run("run", [*STAGING, "--full-refresh"]) == 0
        yield {"shop": shop, "before": before, **changes}
        empty()
    settings.cache_clear()


def change(shop: Shop, server: MariaDB, name: str) -> dict[str, Any]:
    """A day in the shop: a status, two edited orders, a confirmed checkout, a price and a product by SQL."""
    noon = datetime.combine(NEXT, datetime.min.time()) + timedelta(hours=12)
    by_id = {order["order_id"]: order for order in shop.rows["order"]}
    shipped = next(one for one in shop.rows["order"] if one["order_status_id"] == 2 and one["order_id"] % 20)
    late = next(one for one in shop.rows["order"] if one["order_status_id"] == 0 and one["order_id"] % 20)
    for order, status in ((shipped, 3), (late, 1)):
        order |= {"order_status_id": status, "date_modified": noon}
        row = {"order_id": order["order_id"], "order_status_id": status, "notify": 0, "comment": "", "date_added": noon}
        shop.rows["order_history"].append(row)
        shop.insert(server, name, "order_history", [row])
    taken = {shipped["order_id"], late["order_id"]}
    edited = next(one for n, one in by_id.items() if one["order_status_id"] and n not in taken and n % 6 == 5)
    number = edited["order_id"]
    gone = [item for item in shop.rows["order_product"] if item["order_id"] == number]
    for table in ("order_product", "order_total"):
        shop.rows[table] = [row for row in shop.rows[table] if row["order_id"] != number]
        server.run(name, f"delete from oc_{table} where order_id = {number}")
    first = 100_000
    items = [{**gone[0], "order_product_id": first, "quantity": 7, "total": gone[0]["price"] * 7}]
    at = len(shop.rows["order_total"])
    shop.totals(edited, items, Decimal("9.99"), False)
    shop.rows["order_product"] += items
    edited["date_modified"] = noon
    shop.insert(server, name, "order_product", items)
    shop.insert(server, name, "order_total", shop.rows["order_total"][at:])
    # Another edit leaves nothing of the order.
    emptied = next(
        one for n, one in by_id.items() if one["order_status_id"] and n not in taken | {number} and n % 6 == 1
    )
    gone += [item for item in shop.rows["order_product"] if item["order_id"] == emptied["order_id"]]
    for table in ("order_product", "order_total"):
        shop.rows[table] = [row for row in shop.rows[table] if row["order_id"] != emptied["order_id"]]
        server.run(name, f"delete from oc_{table} where order_id = {emptied['order_id']}")
    at = len(shop.rows["order_total"])
    shop.totals(emptied, [], Decimal(0), False)
    shop.insert(server, name, "order_total", shop.rows["order_total"][at:])
    emptied["date_modified"] = noon
    for order in (shipped, late, edited, emptied):
        server.run(
            name,
            f"update oc_order set order_status_id = {order['order_status_id']}, total = {order['total']}, "
            f"date_modified = '{order['date_modified']}' where order_id = {order['order_id']}",
        )
    # Nobody touches date_modified.
    server.run(
        name, "update oc_product set price = 777.77 where product_id = 5", "delete from oc_product where product_id = 6"
    )
    return {"shipped": shipped, "late": late, "edited": edited, "gone": gone}


def path_of(shop: Shop, number: int) -> list[tuple[datetime, int]]:
    """The statuses of an order, oldest first, from the day of its first one on."""
    history = shop.rows["order_history"]
    rows = [(row["date_added"], row["order_status_id"]) for row in history if row["order_id"] == number]
    first = min((utc(at).date() for at, status in rows if status), default=date.max)
    return [(at, status) for at, status in rows if utc(at).date() >= first]


def test_rows_in_are_rows_out_and_none_is_quarantined(loaded: dict[str, Any]) -> None:
    counts = query(
        "select entity, n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit where source = 'opencart'"
    )
    assert {row[0] for row in counts} == set(load_source("opencart").entities)
    assert all(row[1] == row[2] + row[3] + row[4] for row in counts)
    assert [row for row in counts if row[4]] == []
    before = loaded["before"]
    for entity in ("order", "order_product", "order_option", "order_total", "order_history", "review", "return"):
        found = query(f"select count(distinct _file || oc.ctid::text), count(distinct {entity}_id) from "
                      f'raw_opencart."oc_{entity}" oc where partition_on <= \'{LAST}\'')  # fmt: skip
        assert found[0][1] == len(before[entity]), entity


def test_orders_are_what_went_through_the_checkout_with_the_status_of_each_day(loaded: dict[str, Any]) -> None:
    shop = loaded["shop"]
    found: dict[str, dict[date, tuple]] = {}
    for number, day, *rest in query(
        "select order_id, known_on, status, ordered_at, customer_id, currency, customer_currency, "
        "customer_currency_rate, approved_at, handed_over_at, delivered_at, is_deleted "
        "from staging.stg_opencart__orders"
    ):
        found.setdefault(number, {})[day] = tuple(rest)
    placed = {str(row["order_id"]): row for row in shop.rows["order"] if path_of(shop, row["order_id"])}
    assert set(found) == set(placed)
    assert len(placed) < len(shop.rows["order"])
    edited = {row["order_id"] for row in shop.rows["order_history"] if row["order_status_id"] == 0}
    assert {number for number in edited if str(number) in placed} < edited
    meaning = {**STATUSES, 17: None, 9: None, 0: "canceled"}
    for number, order in placed.items():
        path = path_of(shop, order["order_id"])
        for day in {utc(at).date() for at, _ in path}:
            known = [(at, meaning[status]) for at, status in path if utc(at).date() <= day]
            status = next((status for _, status in reversed(known) if status), "created")
            first = {name: min((utc(at) for at, status in known if status == name), default=None)
                     for name in ("approved", "shipped", "delivered")}  # fmt: skip
            assert found[number][day] == (
                status, utc(order["date_added"]), pseudonym("email", order["email"]), "EUR", order["currency_code"],
                Decimal(order["currency_value"]), first["approved"], first["shipped"], first["delivered"], False,
            ), (number, day)  # fmt: skip
        assert min(found[number]) == utc(path[0][0]).date(), number
    # The abandoned checkout that was paid the day after is an order from then on.
    assert min(found[str(loaded["late"]["order_id"])]) == NEXT


def test_items_carry_the_orders_freight_and_follow_an_edit(loaded: dict[str, Any]) -> None:
    shop = loaded["shop"]
    newest = query(
        "select distinct on (order_item_id) order_item_id, order_id, product_id, vendor_id, quantity, unit_amount, "
        "freight_amount, is_deleted, known_on from staging.stg_opencart__order_items "
        "order by order_item_id, known_on desc"
    )
    placed = {row["order_id"] for row in shop.rows["order"] if path_of(shop, row["order_id"])}
    kept = {row[0]: row for row in newest if not row[7]}
    items = [row for row in shop.rows["order_product"] if row["order_id"] in placed]
    assert set(kept) == {row["order_product_id"] for row in items}
    makers = {row["product_id"]: row["manufacturer_id"] for row in shop.rows["product"]}
    for item in items:
        maker = makers[item["product_id"]]
        assert kept[item["order_product_id"]][1:6] == (
            str(item["order_id"]), str(item["product_id"]), str(maker) if maker else None, item["quantity"],
            item["price"],
        )  # fmt: skip
    freight: dict[int, Decimal] = {}
    for row in kept.values():
        freight[int(row[1])] = freight.get(int(row[1]), Decimal(0)) + row[6]
    charged = {row["order_id"]: row["value"] for row in shop.rows["order_total"] if row["code"] == "shipping"}
    assert freight == {number: charged.get(number, Decimal(0)) for number in freight}
    assert freight[loaded["edited"]["order_id"]] == Decimal("9.99")
    gone = {row[0]: row[8] for row in newest if row[7]}
    assert gone == {item["order_product_id"]: NEXT for item in loaded["gone"]}


def test_payments_are_in_the_base_currency_and_as_the_customer_paid(loaded: dict[str, Any]) -> None:
    shop = loaded["shop"]
    found = {
        row[0]: row[1:]
        for row in query(
            "select distinct on (order_id) order_id, payment_amount, currency, customer_amount, customer_currency, "
            "payment_type, paid_on from staging.stg_opencart__payments order by order_id, known_on desc"
        )
    }
    placed = [row for row in shop.rows["order"] if path_of(shop, row["order_id"])]
    assert set(found) == {str(row["order_id"]) for row in placed}
    for order in placed:
        rate, places = CURRENCIES[order["currency_code"]]
        paid = (order["total"] * Decimal(rate)).quantize(Decimal(1).scaleb(-places), rounding="ROUND_HALF_UP")
        day = utc(order["date_added"]).date()
        assert found[str(order["order_id"])] == (order["total"], "EUR", paid, order["currency_code"], "cod", day)


def test_products_have_the_chosen_language_and_every_change_of_price(loaded: dict[str, Any]) -> None:
    versions: dict[str, list[tuple]] = {}
    for row in query("select product_id, known_on, product_name, category, list_price_amount, sku, is_deleted "
                     "from staging.stg_opencart__products order by product_id, known_on"):  # fmt: skip
        versions.setdefault(row[0], []).append(row[1:])
    before = {row["product_id"]: row for row in loaded["before"]["product"]}
    assert set(versions) == {str(number) for number in before}
    names = {row["product_id"]: unescape(row["name"]) for row in reversed(loaded["before"]["product_description"])
             if row["language_id"] == 1 or row["product_id"] == 40}  # fmt: skip
    categories: dict[int, int] = {}
    for row in loaded["before"]["product_to_category"]:
        categories[row["product_id"]] = min(row["category_id"], categories.get(row["product_id"], 99))
    for number, row in before.items():
        first = (FIRST, names[number], f"Cups & Plates {categories[number]}", row["price"], f"SKU-{number}", False)
        later = {5: [(NEXT, *first[1:3], Decimal("777.77"), *first[4:])], 6: [(NEXT, *first[1:5], True)]}
        assert versions[str(number)] == [first, *later.get(number, [])]
    assert names[40] == 'Tom & Jerry\'s "40" <Becher>'


def test_vendors_are_manufacturers_until_an_extension_is_named(loaded: dict[str, Any], mariadb: MariaDB) -> None:
    assert query("select vendor_id, vendor_name from staging.stg_opencart__vendors order by 1") == [
        (str(number), f"Maker & Sons {number}") for number in range(1, 6)
    ]
    mariadb.run(
        database("4.1"),
        "create table ext_seller (seller_id varchar(9) primary key, nickname varchar(40))",
        "create table ext_seller_product (pid int, sid varchar(9))",
        "insert into ext_seller values ('S1', 'Anna &amp; Co')",
        "insert into ext_seller_product values (5, 'S1')",
    )
    source = load_source("opencart")
    names = source.connection["names"] | {
        "vendor_products": "ext_seller_product", "vendor_products_product": "pid", "vendor_products_vendor": "sid",
        "vendors": "ext_seller", "vendors_vendor": "seller_id", "vendors_name": "nickname",
    }  # fmt: skip
    mapped = source.model_copy(update={"connection": source.connection | {"names": names}})
    found = {one.entity: one.rows.to_pylist() for one in extract(mapped, NEXT, NEXT)}
    assert [(row["vendor_id"], row["name"]) for row in found["oc_vendor"]] == [("S1", "Anna & Co")]
    assert [(row["product_id"], row["vendor_id"]) for row in found["oc_vendor_product"]] == [("5", "S1")]


def test_customers_are_known_by_their_orders(loaded: dict[str, Any]) -> None:
    shop = loaded["shop"]
    placed = [row for row in shop.rows["order"] if path_of(shop, row["order_id"])]
    found = query("select distinct customer_id, region from staging.stg_opencart__customers")
    assert {row[0] for row in found} == {pseudonym("email", row["email"]) for row in placed}
    assert {row[1] for row in found} == {f"North & South {number}" for number in range(3)}
