"""The dbt project on an embedded Postgres: a handful of rows of every source, built by the real command."""

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from include import dbt
from include.ingest import touched
from include.ingest.tables import prepare
from include.warehouse.engine import connect
from tests.integration.conftest import drop_models

pytestmark = pytest.mark.integration

DAY = date(2025, 1, 2)
TOUCHED = ("int_touched__orders", "int_touched__order_keys")
FIRST, TEN = "2025-01-01", "2025-01-01 10:00+00"
NIGHT_2 = {"partition_on": "2025-01-02", "known_at": "2025-01-02 09:00+00"}


def order_of_outlet(order_id: str, customer: str, status: str, **known: str) -> dict:
    return {"order_id": order_id, "customer_email": customer, "customer_region": "South", "currency": "USD",
            "ordered_at": "2025-01-01 09:00+00", "status": status, **known}  # fmt: skip


def session(session_id: str, customer: str | None, at: str, **values: object) -> dict:
    return {"session_id": session_id, "marketplace": "demo_shop", "visitor_id": "v", "customer_id": customer,
            "session_on": FIRST, "started_at": f"{FIRST} {at}+00", "ended_at": f"{FIRST} {at}+00", "n_events": 1,
            "n_product_views": 1, "n_cart_adds": 0, "n_purchases": 0, "is_bot": False, **values}  # fmt: skip


def olist_order(order_id: str, customer: str, status: str, **more: str) -> dict:
    return {"order_id": order_id, "customer_id": customer, "order_status": status,
            "order_purchase_timestamp": "2025-01-01 08:00+00", "order_estimated_delivery_date": "2025-01-05",
            **more}  # fmt: skip


def line(invoice: str, number: int, code: str, quantity: int, price: str, customer: str | None) -> dict:
    return {"invoice_no": invoice, "line_no": number, "stock_code": code, "description": code, "quantity": quantity,
            "invoice_date": TEN, "unit_price": price, "customer_id": customer, "country": "France"}  # fmt: skip


def shop_order(order_id: int, customer: str, status: int) -> dict:
    return {"order_id": order_id, "email": customer, "order_status_id": status, "payment_method": "Credit Card",
            "total": 22, "date_added": TEN}  # fmt: skip


ROWS: dict[str, list[dict]] = {
    "demo_shop.oc_vendor": [{"vendor_id": 1, "name": "A &amp; B", "zone": "North"}],
    "demo_shop.oc_product": [{"product_id": 7, "name": "Cup", "category": "Kitchen", "price": 6, "vendor_id": 1}],
    # Order 2 is an abandoned checkout.
    "demo_shop.oc_order": [shop_order(1, "ann", 1), shop_order(2, "bob", 0)],
    "demo_shop.oc_order_product": [
        {"order_product_id": 1, "order_id": 1, "product_id": 7, "quantity": 1, "price": 6},
        {"order_product_id": 2, "order_id": 1, "product_id": 8, "quantity": 1, "price": 6},
        {"order_product_id": 3, "order_id": 2, "product_id": 7, "quantity": 1, "price": 6},
    ],
    "demo_shop.oc_order_total": [{"order_total_id": 1, "order_id": 1, "code": "shipping", "value": "9.99"}],
    "demo_shop.oc_order_history": [
        {"order_history_id": 1, "order_id": 1, "order_status_id": 1, "date_added": TEN, "estimated_on": "2025-01-08"},
        {"order_history_id": 2, "order_id": 1, "order_status_id": 5, "date_added": "2025-01-09 12:00+00",
         "partition_on": "2025-01-09", "known_at": "2025-01-09 12:00+00"},
    ],
    "demo_outlet.orders": [
        order_of_outlet("O1", "ann", "created"),
        order_of_outlet("O1", "ann", "canceled", **NIGHT_2),
        order_of_outlet("O2", "dan", "created"),
    ],
    "demo_outlet.order_items": [
        {"order_id": order_id, "line": 1, "sku": "S1", "vendor_code": "V1", "quantity": 2, "unit_price": "2.50",
         "freight": 1} for order_id in ("O1", "LOST")
    ],
    "demo_clicks.sessions": [
        session("s1", "ann", "10:00", ended_at=f"{FIRST} 10:10+00", n_events=2, n_cart_adds=1, campaign="mail"),
        session("s2", None, "11:00", is_bot=True),
    ],
    "olist.orders": [
        olist_order("X", "per-order", "created"),
        olist_order("X", "per-order", "delivered", order_approved_at="2025-01-01 12:00+00",
                    order_delivered_carrier_date="2025-01-03 08:00+00",
                    order_delivered_customer_date="2025-01-06 20:00+00",
                    partition_on="2025-01-06", known_at="2025-01-06 20:00+00"),
        olist_order("NOITEMS", "other", "unavailable"),
    ],
    "olist.customers": [{"customer_id": "per-order", "customer_unique_id": "person", "customer_state": "SP"}],
    "olist.order_items": [
        {"order_id": "X", "order_item_id": 1, "product_id": "p1", "seller_id": "s1", "price": "58.90",
         "freight_value": "13.29"},
        {"order_id": "X", "order_item_id": 2, "product_id": "p2", "seller_id": "s1", "price": "10", "freight_value": 2},
    ],
    "olist.order_payments": [
        {"order_id": "X", "payment_sequential": 1, "payment_type": "credit_card", "payment_installments": 2,
         "payment_value": "84.19"}
    ],
    "olist.products": [
        {"product_id": "p1", "product_category_name": "artes"},
        {"product_id": "p2", "product_category_name": "pc_gamer"},
        {"product_id": "p3", "product_category_name": None},
    ],
    "olist.category_translation": [{"product_category_name": "artes", "product_category_name_english": "art"}],
    "online_retail.lines": [
        line("536365", 1, "85123A", 6, "2.55", "eve"),
        line("536365", 2, "POST", 1, "18", "eve"),
        line("C536366", 1, "85123A", -1, "2.55", None),
    ],
}  # fmt: skip


def fill_raw() -> None:
    with connect("loader") as conn:
        for name, content in ROWS.items():
            source, table = name.split(".")
            for number, row in enumerate(content):
                raw = {"partition_on": FIRST, "_file": "test", "_line": number} if table != "sessions" else {}
                whole = {"known_at": TEN, **raw, **row}
                conn.execute(
                    sql.SQL("insert into {} ({}) values ({})").format(
                        sql.Identifier(f"raw_{source}", table),
                        sql.SQL(", ").join(map(sql.Identifier, whole)),
                        sql.SQL(", ").join([sql.Placeholder()] * len(whole)),
                    ),
                    list(whole.values()),
                )


def touch(source: str, thing: str, key: str) -> None:
    """Say that rows of raw changed, as a load does."""
    with connect("loader") as conn:
        touched.record(conn, source, thing, sql.SQL("select {}").format(sql.Literal(key)))


def empty_raw() -> None:
    """No rows in any raw table, whoever wrote them."""
    with connect() as conn:
        tables = conn.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname like 'raw\\_%'"
        ).fetchall()
        conn.execute("truncate " + ", ".join(table for (table,) in tables))


def rows(query: str) -> list[tuple]:
    with connect() as conn:
        return conn.execute(query).fetchall()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def raw(warehouse: Path) -> Iterator[None]:
    prepare()
    empty_raw()
    fill_raw()
    yield
    empty_raw()
    with connect() as conn:
        conn.execute("truncate ops.touched_key, ops.touched_work, ops.warehouse_state")
    drop_models()


@pytest.fixture(scope="module")
def built(raw: None) -> None:
    assert dbt.run("build", as_of=DAY) == 0


def test_dbt_unit_tests_pass_whatever_the_tables_hold(raw: None) -> None:
    # The seeds too: models join them.
    assert dbt.run("build", ["--resource-type", "seed", "--resource-type", "model"]) == 0
    assert dbt.run("test", ["--select", "test_type:unit"]) == 0


def test_orders_show_their_newest_known_state_and_exact_sums(built: None) -> None:
    found = rows(
        "select marketplace, order_id, customer_id, status, n_items, item_amount, freight_amount, order_amount "
        "from core.fact_order order by 1, 2"
    )
    money = Decimal
    assert found == [
        ("demo_outlet", "O1", "ann", "canceled", 1, money("5"), money("1"), money("6")),
        ("demo_outlet", "O2", "dan", "created", 0, money("0"), money("0"), money("0")),
        ("demo_shop", "1", "ann", "delivered", 2, money("12"), money("9.99"), money("21.99")),
        ("olist", "NOITEMS", None, "unavailable", 0, money("0"), money("0"), money("0")),
        ("olist", "X", "person", "delivered", 2, money("68.90"), money("15.29"), money("84.19")),
        ("online_retail", "536365", "eve", "approved", 2, money("33.30"), money("0"), money("33.30")),
        ("online_retail", "C536366", None, "canceled", 1, money("-2.55"), money("0"), money("-2.55")),
    ]


def test_an_item_without_its_order_is_kept_and_warned_about(built: None) -> None:
    assert rows("select item_amount, ordered_at, ordered_on from core.fact_order_item where order_id = 'LOST'") == [
        (Decimal(5), None, date(2025, 1, 1))
    ]
    verdicts = rows(
        "select severity, is_passed, n_failed from ops.quality_result where gate = 'warehouse' "
        "and as_of = '2025-01-02' and target = 'fact_order_item' and rule ~ 'fact_order_$'"
    )
    assert verdicts == [("warning", False, 1)]


def test_versions_show_nothing_that_was_not_known_on_their_day(built: None) -> None:
    found = rows(
        "select order_id, known_on::text, status, delivered_at is not null from core.version_orders "
        "where order_id in ('1', 'X', 'O1') order by 1, 2"
    )
    assert found == [
        ("1", "2025-01-01", "created", False),
        ("1", "2025-01-09", "delivered", True),
        ("O1", "2025-01-01", "created", False),
        ("O1", "2025-01-02", "canceled", False),
        ("X", "2025-01-01", "created", False),
        ("X", "2025-01-06", "delivered", True),
    ]


def test_lateness_counts_days_after_the_promised_day(built: None) -> None:
    found = rows("select order_id, delay_days, is_late from core.fact_delivery order by 1")
    assert found == [("1", 1, True), ("NOITEMS", None, None), ("X", 1, True)]


def test_dimensions_hold_what_was_sold_but_never_listed(built: None) -> None:
    products = rows(
        "select marketplace, product_id, category, is_product, first_sold_on is null "
        "from core.dim_product order by 1, 2"
    )
    assert products == [
        ("demo_outlet", "S1", "unknown", True, False),
        ("demo_shop", "7", "Kitchen", True, False),
        ("demo_shop", "8", "unknown", True, False),
        ("olist", "p1", "art", True, False),
        ("olist", "p2", "pc_gamer", True, False),
        ("olist", "p3", "unknown", True, True),
        ("online_retail", "85123A", "unknown", True, False),
        ("online_retail", "POST", "unknown", False, False),
    ]
    vendors = rows("select marketplace, vendor_id, vendor_name from core.dim_vendor order by 1, 2")
    assert vendors == [("demo_outlet", "V1", None), ("demo_shop", "1", "A & B"), ("olist", "s1", None)]


def test_one_person_of_two_shops_is_one_customer_and_canceled_orders_do_not_count(built: None) -> None:
    assert rows("select n_orders, first_marketplace from core.dim_customer where customer_id = 'ann'") == [
        (1, "demo_outlet")
    ]
    assert rows("select n_orders, first_order_on from core.dim_customer where customer_id = 'bob'") == []


def test_sessions_are_facts_with_their_campaign_and_bots_marked(built: None) -> None:
    found = rows(
        "select customer_id, n_events, n_product_views, n_cart_adds, campaign, is_bot from core.fact_session "
        "where marketplace = 'demo_shop' order by started_at"
    )
    assert found == [("ann", 2, 1, 1, "mail", False), (None, 1, 1, 0, None, True)]


def test_a_rebuild_leaves_the_same_rows(built: None) -> None:
    tables = [
        name for (name,) in rows("select tablename from pg_tables where schemaname = 'core' and tablename !~ 'probe'")
    ]
    assert len(tables) >= 12

    def content() -> dict[str, list[tuple]]:
        return {
            name: rows(f"select md5(string_agg(t::text, ',' order by t::text)) from core.{name} t") for name in tables
        }

    before = content()
    assert dbt.run("build", ["--full-refresh"]) == 0
    assert content() == before


def test_a_session_that_leaves_its_day_stops_the_build(built: None, capsys: pytest.CaptureFixture[str]) -> None:
    change = "update raw_demo_clicks.sessions set ended_at = %s where session_id = 's1'"
    with connect() as conn:
        conn.execute(change, ("2025-01-02 00:00+00",))
    touch("demo_clicks", "session_days", FIRST)
    try:
        assert dbt.run("build", ["--select", "int_touched__session_days", "fact_session"]) == 1
    finally:
        with connect() as conn:
            conn.execute(change, (f"{FIRST} 10:10+00",))
    assert "sessions_keep_to_their_day" in capsys.readouterr().err


def test_rates_behind_the_newest_order_are_warned_about(built: None, capsys: pytest.CaptureFixture[str]) -> None:
    [(newest,)] = rows("select max(ordered_on) from core.fact_order")

    def is_warned(*days_behind: int) -> bool:
        with connect("loader") as conn:
            conn.execute("delete from raw_ecb_rates.rates")
            for number, days in enumerate(days_behind):
                conn.execute(
                    """insert into raw_ecb_rates.rates
                         (currency, rate_on, units_per_eur, partition_on, known_at, _file, _line, _deleted)
                       values ('USD', %s, 1.1, %s, now(), 'test', %s, false)""",
                    (newest - timedelta(days), newest, number),
                )
        capsys.readouterr()
        assert dbt.run("test", ["--select", "rates_are_fresh"]) == 0
        return "warned test rates_are_fresh" in capsys.readouterr().out

    try:
        assert is_warned()
        assert is_warned(9, 8)
        assert not is_warned(9, 7)
    finally:
        assert is_warned()


def test_freight_that_is_not_what_was_charged_stops_the_build(built: None, capsys: pytest.CaptureFixture[str]) -> None:
    """In all orders, and of a night in those whose contents may be others."""
    test = "demo_shop_freight_is_allocated_exactly"
    contents = (*TOUCHED, "int_touched__contents", "int_touched__content_keys")

    def add(amount: int) -> None:
        with connect() as conn:
            conn.execute(
                "update core.fact_order set freight_amount = freight_amount + %s where marketplace = 'demo_shop'",
                (amount,),
            )

    touch("demo_shop", "orders", "1")
    assert dbt.run("build", ["--select", *contents, test]) == 0
    add(1)
    try:
        assert dbt.run("build", ["--select", test]) == 1
        assert dbt.run("test", ["--select", test]) == 1
    finally:
        add(-1)
    assert test in capsys.readouterr().err
    assert dbt.run("test", ["--select", test]) == 0


def test_a_status_outside_the_vocabulary_stops_the_build_and_names_the_test(
    built: None, capsys: pytest.CaptureFixture[str]
) -> None:
    change = "update raw_demo_outlet.orders set status = %s where order_id = 'O2'"
    with connect() as conn:
        conn.execute(change, ("teleported",))
    touch("demo_outlet", "orders", "O2")
    try:
        assert dbt.run("build", ["--select", *TOUCHED, "stg_demo_outlet__orders+"]) == 1
    finally:
        with connect() as conn:
            conn.execute(change, ("created",))
    out = capsys.readouterr()
    assert "FAILED test accepted_values_fact_order_status" in out.err
    path = next(line.strip() for line in out.err.splitlines() if line.endswith(".sql"))
    assert "teleported" not in Path(path).read_text()
    assert "failed" in out.out


def test_a_version_that_shows_the_future_stops_the_build(built: None, capsys: pytest.CaptureFixture[str]) -> None:
    change = "update raw_olist.orders set order_delivered_carrier_date = %s where order_status = 'created'"
    with connect() as conn:
        conn.execute(change, ("2025-01-02 00:00+00",))
    touch("olist", "orders", "X")
    try:
        assert dbt.run("build", ["--select", *TOUCHED, "stg_olist__orders", "int_orders__versions"]) == 1
    finally:
        with connect() as conn:
            conn.execute(change, (None,))
    assert "known_by_its_day" in capsys.readouterr().err


def test_dbt_may_not_touch_what_bi_reads(built: None) -> None:
    with connect("transformer") as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("create table published.mine (id int)")


def test_every_column_of_a_mart_is_commented_in_the_warehouse(built: None) -> None:
    bare = "select attname from pg_attribute where attrelid = 'core.{}'::regclass and attnum > 0 and not attisdropped "
    for mart in ("fact_order", "dim_customer", "version_orders"):
        assert rows(f"{bare.format(mart)} and coalesce(col_description(attrelid, attnum), '') = ''") == [], mart


def test_docs_are_one_page_that_needs_no_server(built: None, warehouse: Path) -> None:
    assert dbt.main(["docs", "generate"]) == 0
    assert (warehouse / "dbt" / "target" / "static_index.html").stat().st_size > 1_000_000
