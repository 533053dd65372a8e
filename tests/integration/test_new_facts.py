"""Refunds, reviews, coupons, stock, prices and rates: rows of every source, and what the facts make of them by hand."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg import sql

from include import dbt
from include.ingest.tables import prepare
from include.warehouse.engine import connect
from tests.integration.test_dbt_build import empty_raw, line, rows, session, shop_order

pytestmark = pytest.mark.integration

MODELS = ("fact_refund", "fact_review", "fact_campaign_touch", "fact_stock_day", "fact_price_change")
PARTS = ("--indirect-selection", "cautious")
"""Tests only of what is built."""
TEN = "10:00+00"


def on(day: str) -> dict:
    """A row that became known on a day of January 2025."""
    return {"partition_on": f"2025-01-{day}", "known_at": f"2025-01-{day} {TEN}"}


def rate(currency: str, day: str, units: str, told: str | None = None) -> dict:
    return {"currency": currency, "rate_on": day, "units_per_eur": units,
            "partition_on": told or day, "known_at": f"{told or day} 15:00+00"}  # fmt: skip


def status(number: int, order_id: int, status_id: int, day: str) -> dict:
    return {"order_history_id": number, "order_id": order_id, "order_status_id": status_id,
            "date_added": f"2025-01-{day} {TEN}", **on(day)}  # fmt: skip


def product(price: str, day: str, **known: str) -> dict:
    return {"product_id": 7, "name": "Cup", "category": "Kitchen", "price": price, "vendor_id": 1, "quantity": 1000,
            "status": 1, "sku": "SKU-7", "ean": "4006381333931", **on(day), **known}  # fmt: skip


def api_order(order_id: str, day: str, is_deleted: bool = False) -> dict:
    return {"order_id": order_id, "customer_email": "gil", "placed_at": f"2025-01-01 {TEN}", "status": "delivered",
            "currency": "GBP", "_deleted": is_deleted, **on(day)}  # fmt: skip


def cart_return(number: int, action: int, **more: object) -> dict:
    return {"return_id": number, "order_id": 50, "product_id": 9, "quantity": 2, "return_status_id": 3,
            "return_reason_id": 4, "return_action_id": action, "date_added": f"2025-01-03 {TEN}",
            "date_modified": f"2025-01-07 {TEN}", **on("07"), **more}  # fmt: skip


ROWS: dict[str, list[dict]] = {
    # A dollar was worth 0.80 until the 5th, and as much as a euro from the 6th on.
    "ecb_rates.rates": [
        rate("USD", "2024-12-31", "1.25"),
        rate("USD", "2024-12-31", "1.25", told="2025-01-01"),
        rate("GBP", "2024-12-31", "0.8"),
        rate("USD", "2025-01-06", "1"),
    ],
    "demo_shop.oc_vendor": [{"vendor_id": 1, "name": "A", **on("01")}],
    "demo_shop.oc_product": [
        product("6", "01"),
        product("6", "02"),
        product("7.50", "03"),
        # Corrects what was known before the 3rd: today's price is still that of the 3rd.
        product("5", "04", known_at=f"2025-01-02 {TEN}"),
        product("6", "07"),
    ],
    "demo_shop.oc_order": [shop_order(number, "ann", 1) | on("01") for number in (1, 3, 4)],
    "demo_shop.oc_order_product": [
        {"order_product_id": 11, "order_id": 1, "product_id": 7, "quantity": 2, "price": 10, **on("01")},
        {"order_product_id": 12, "order_id": 1, "product_id": 8, "quantity": 1, "price": 3, **on("01")},
        {"order_product_id": 13, "order_id": 3, "product_id": 7, "quantity": 1, "price": 5, **on("01")},
        {"order_product_id": 14, "order_id": 4, "product_id": 7, "quantity": 1, "price": 5, **on("01")},
    ],
    # Order 3 is canceled on the 4th. Order 4 is too, and then it is not any more.
    "demo_shop.oc_order_history": [
        status(1, 3, 7, "04"), status(2, 3, 7, "05"), status(3, 4, 7, "04"), status(4, 4, 2, "05"),
    ],
    "demo_shop.oc_return": [
        {"return_id": number, "order_id": 1, "product_id": product_id, "quantity": 1, "return_reason_id": 3,
         "date_added": f"2025-01-03 {TEN}", **on("03")}
        for number, product_id in ((1, 7), (2, 8))
    ],
    "demo_shop.oc_customer_transaction": [
        {"customer_transaction_id": 1, "order_id": 1, "return_id": 1, "amount": "10.70",
         "date_added": f"2025-01-06 {TEN}", **on("06")},
        # A gift of the shop: nothing came back.
        {"customer_transaction_id": 2, "order_id": 1, "return_id": None, "amount": "5",
         "date_added": f"2025-01-06 {TEN}", **on("06")},
    ],
    "demo_shop.oc_review": [
        {"review_id": 1, "product_id": 7, "email": "ann", "rating": 4, "status": 1, "n_characters": 17,
         "date_added": "2025-01-05 23:59+00", **on("05")},
    ],
    "demo_shop.oc_coupon_history": [
        {"coupon_history_id": 1, "order_id": 1, "amount": "-2.30", "code": "WELCOME10", "name": "newsletter",
         "date_added": f"2025-01-01 {TEN}", **on("01")},
    ],
    "demo_shop.oc_product_stock_log": [
        {"product_stock_log_id": 1, "product_id": 7, "quantity": 900, "date_added": "2025-01-02 04:00+00",
         "partition_on": "2025-01-02", "known_at": "2025-01-02 04:00+00"},
        {"product_stock_log_id": 2, "product_id": 7, "quantity": 890, "date_added": f"2025-01-02 {TEN}", **on("02")},
        {"product_stock_log_id": 3, "product_id": 7, "quantity": 800, "date_added": f"2025-01-04 {TEN}", **on("04")},
    ],
    "demo_outlet.orders": [
        {"order_id": "O1", "customer_email": "ann", "currency": "USD", "ordered_at": f"2025-01-01 {TEN}",
         "status": "delivered", **on("01")},
    ],
    "demo_outlet.order_items": [
        {"order_id": "O1", "line": 1, "sku": "S1", "vendor_code": "V1", "quantity": 2, "unit_price": "2.50",
         "freight": 1, **on("01")},
    ],
    "demo_outlet.refunds": [
        {"refund_id": "R1", "order_id": "O1", "line": 1, "sku": "S1", "quantity": 1, "amount": "2.50",
         "reason": "damaged", "refunded_at": f"2025-01-05 {TEN}", **on("05")},
    ],
    "demo_outlet.reviews": [
        {"review_id": "RV1", "order_id": "O1", "sku": "S1", "customer_email": "ann", "rating": 2, "n_characters": 80,
         "reviewed_at": f"2025-01-06 {TEN}", **on("06")},
    ],
    # Order B was removed: its refund is gone with it.
    "marketplace_api.orders": [api_order("A", "01"), api_order("B", "01"), api_order("B", "02", is_deleted=True)],
    "marketplace_api.refunds": [
        {"refund_id": f"f{order_id}", "order_id": order_id, "amount": "8", "reason": "late",
         "refunded_at": f"2025-01-04 {TEN}", **on("04")}
        for order_id in ("A", "B")
    ],
    "online_retail.lines": [
        line("536365", 1, "85123A", 6, "2.55", "eve") | on("01"),
        line("C536366", 1, "85123A", -2, "2.55", "eve") | on("01"),
        line("C536366", 2, "M", -1, "1.25", "eve") | on("01"),
    ],
    # Nobody knows what a real was worth.
    "olist.orders": [
        {"order_id": "X", "customer_id": "c", "order_status": "canceled",
         "order_purchase_timestamp": f"2025-01-01 {TEN}", **on("02")},
    ],
    "olist.customers": [{"customer_id": "c", "customer_unique_id": "person", **on("01")}],
    "olist.order_items": [
        {"order_id": "X", "order_item_id": 1, "product_id": "p", "seller_id": "s", "price": "10", "freight_value": "2",
         **on("01")},
    ],
    "opencart.oc_order": [
        {"order_id": 50, "customer_id": 5, "email": "hal", "total": "20", "order_status_id": 5, "currency_code": "EUR",
         "currency_value": "1", "date_added": f"2025-01-01 {TEN}", **on("01")},
    ],
    "opencart.oc_order_product": [
        {"order_product_id": 70, "order_id": 50, "product_id": 9, "quantity": 3, "price": "10", "tax": "1.90",
         "date_added": f"2025-01-01 {TEN}", **on("01")},
    ],
    # Refunded, replaced, and one that the shop deleted again.
    "opencart.oc_return": [cart_return(1, 1), cart_return(2, 3), cart_return(3, 1, _deleted=True)],
    "opencart.oc_customer": [{"customer_id": 5, "email": "hal", "date_added": f"2025-01-01 {TEN}", **on("01")}],
    "opencart.oc_review": [
        {"review_id": 1, "product_id": 9, "customer_id": 5, "text": "Fine", "rating": 5, "status": False,
         "date_added": f"2025-01-02 {TEN}", **on("02")},
        {"review_id": 1, "product_id": 9, "customer_id": 5, "text": "Not so fine", "rating": 2, "status": True,
         "date_added": f"2025-01-02 {TEN}", **on("03")},
        {"review_id": 2, "product_id": 9, "customer_id": 0, "text": "Spam", "rating": 5, "status": False,
         "date_added": f"2025-01-02 {TEN}", "_deleted": True, **on("04")},
    ],
    "opencart.oc_coupon": [{"coupon_id": 1, "name": "", "code": "SPRING", **on("01")}],
    "opencart.oc_coupon_history": [
        {"coupon_history_id": 1, "coupon_id": 1, "order_id": 50, "customer_id": 0, "amount": "-2",
         "date_added": f"2025-01-01 {TEN}", **on("01")},
    ],
    "opencart.oc_product": [
        {"product_id": 9, "model": "m", "price": "10", "quantity": quantity, "status": True, "ean": "12345", **on(day)}
        for day, quantity in (("01", 5), ("02", 3), ("03", 3))
    ],
    "demo_clicks.sessions": [
        session("before", "ann", "08:00", campaign="social"),
        session("after", "ann", "12:00", campaign="newsletter"),
        session("stranger", None, "09:00", campaign="social"),
        session("bot", None, "09:00", campaign="social", is_bot=True),
        session("direct", "ann", "07:00"),
    ],
}  # fmt: skip


def fill(content: dict[str, list[dict]]) -> None:
    with connect("loader") as conn:
        for name, found in content.items():
            source, table = name.split(".")
            for number, row in enumerate(found):
                raw = {"known_at": f"2025-01-01 {TEN}"} if table == "sessions" else {"_file": "test", "_line": number}
                whole = {**raw, **row}
                conn.execute(
                    sql.SQL("insert into {} ({}) values ({})").format(
                        sql.Identifier(f"raw_{source}", table),
                        sql.SQL(", ").join(map(sql.Identifier, whole)),
                        sql.SQL(", ").join([sql.Placeholder()] * len(whole)),
                    ),
                    list(whole.values()),
                )


@pytest.fixture(scope="module")
def built(warehouse: Path) -> Iterator[None]:
    prepare()
    empty_raw()
    fill(ROWS)
    with connect() as conn:
        conn.execute("truncate ops.load_audit")
        conn.execute(
            "insert into ops.load_audit (run_id, source, entity, partition_on, n_in, n_loaded, n_duplicate, "
            "n_quarantined, checksum) values ('test', 'demo_shop', 'oc_order', '2025-01-20', 0, 0, 0, 0, '')"
        )
    assert dbt.run("build", [*PARTS, "--full-refresh", "--select", *(f"+{name}" for name in MODELS)]) == 0
    yield
    with connect() as conn:
        conn.execute("truncate ops.load_audit")
    empty_raw()


def money(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def test_a_return_has_its_amount_when_it_is_paid_back_and_none_before(built: None) -> None:
    found = rows(
        "select refund_id, order_item_id, product_id, vendor_id, customer_id, kind, status, refunded_on, quantity, "
        "refund_amount, refund_reporting_amount, reason from core.fact_refund "
        "where marketplace = 'demo_shop' and kind <> 'cancellation' order by 1"
    )
    assert found == [
        ("1", 11, "7", "1", "ann", "return", "refunded", date(2025, 1, 6), 1, money("10.70"), money("10.70"),
         "changed_mind"),
        ("2", 12, "8", None, "ann", "return", "requested", date(2025, 1, 3), 1, None, None, "changed_mind"),
    ]  # fmt: skip


def test_an_order_that_is_canceled_now_is_a_cancellation_on_the_first_day_that_said_so(built: None) -> None:
    found = rows(
        "select marketplace, refund_id, order_id, status, refunded_on, refund_amount, currency, "
        "refund_reporting_amount from core.fact_refund where kind = 'cancellation' order by 1"
    )
    assert found == [
        # 5 dollars at 0.80; the freight of an order without a shipping line is 0.
        ("demo_shop", "cancel:3", "3", "canceled", date(2025, 1, 4), money("5"), "USD", money("4")),
        ("olist", "cancel:X", "X", "canceled", date(2025, 1, 2), money("12"), "BRL", None),
    ]


def test_refunds_of_the_other_sources_are_positive_and_in_their_currency(built: None) -> None:
    found = rows(
        "select marketplace, refund_id, kind, quantity, refund_amount, currency, refund_reporting_amount, reason "
        "from core.fact_refund where marketplace <> 'demo_shop' and kind <> 'cancellation' order by 1, 2"
    )
    assert found == [
        ("demo_outlet", "R1", "return", 1, money("2.50"), "USD", money("2"), "damaged"),
        ("marketplace_api", "fA", "refund", None, money("8"), "GBP", money("10"), "late"),
        ("online_retail", "C536366-1", "return", 2, money("5.10"), "GBP", money("6.375"), None),
        ("online_retail", "C536366-2", "refund", 1, money("1.25"), "GBP", money("1.5625"), None),
        ("opencart", "1", "return", 2, money("23.80"), "EUR", money("23.80"), "faulty"),
        ("opencart", "2", "return", 2, None, "EUR", None, "faulty"),
    ]


def test_a_review_is_as_it_was_last_written_and_says_how_long_it_is(built: None) -> None:
    found = rows(
        "select marketplace, review_id, product_id, order_id, customer_id, rating, review_on, is_approved, "
        "n_characters from core.fact_review order by 1, 2"
    )
    assert found == [
        ("demo_outlet", "RV1", "S1", "O1", "ann", money("2"), date(2025, 1, 6), True, 80),
        ("demo_shop", "1", "7", None, "ann", money("4"), date(2025, 1, 5), True, 17),
        ("opencart", "1", "9", None, "hal", money("2"), date(2025, 1, 2), True, 11),
    ]


def test_touches_are_numbered_by_person_over_sessions_and_coupons(built: None) -> None:
    found = rows(
        "select touch_id, kind, campaign, visitor_id, customer_id, session_id, order_id, nth_touch "
        "from core.fact_campaign_touch order by marketplace, touched_at"
    )
    assert found == [
        ("session:before", "session", "social", "v", "ann", "before", None, 1),
        ("session:stranger", "session", "social", "v", None, "stranger", None, None),
        ("coupon:1", "coupon", "newsletter", None, "ann", None, "1", 2),
        ("session:after", "session", "newsletter", "v", "ann", "after", None, 3),
        # A coupon without a name is its own campaign.
        ("coupon:1", "coupon", "SPRING", None, "hal", None, "50", 1),
    ]


def test_stock_is_told_by_the_last_count_of_a_day(built: None) -> None:
    assert rows("select marketplace, product_id, stock_on, stock_quantity from core.fact_stock_day order by 1, 3") == [
        ("demo_shop", "7", date(2025, 1, 2), 890),
        ("demo_shop", "7", date(2025, 1, 4), 800),
        ("opencart", "9", date(2025, 1, 1), 5),
        ("opencart", "9", date(2025, 1, 2), 3),
        ("opencart", "9", date(2025, 1, 3), 3),
    ]


def test_a_price_changes_when_what_is_known_of_it_does(built: None) -> None:
    found = rows(
        "select product_id, changed_on, old_list_price_amount, new_list_price_amount, currency, "
        "round(change_share::numeric, 4), old_list_price_reporting_amount, new_list_price_reporting_amount "
        "from core.fact_price_change order by 2"
    )
    assert found == [
        ("7", date(2025, 1, 3), money("6"), money("7.50"), "USD", money("0.25"), money("4.80"), money("6")),
        ("7", date(2025, 1, 7), money("7.50"), money("6"), "USD", money("-0.2"), money("7.50"), money("6")),
    ]


def test_rates_are_carried_over_days_without_any_and_to_the_newest_day_that_was_loaded(built: None) -> None:
    found = "select rate_on, rate from intermediate.int_currency__rates where currency = '{}' order by 1"
    dollar = rows(found.format("USD"))
    assert [day for day, _ in dollar] == [date(2024, 12, 31), *(date(2025, 1, n) for n in range(1, 21))]
    assert {one for day, one in dollar if day < date(2025, 1, 6)} == {Decimal("0.8")}
    assert {one for day, one in dollar if day >= date(2025, 1, 6)} == {Decimal(1)}
    assert {one for _, one in rows(found.format("EUR"))} == {Decimal(1)}
    assert rows(found.format("GBP"))[-1] == (date(2025, 1, 20), Decimal("1.25"))


def test_products_show_codes_stock_and_status_where_the_shop_tells_them(built: None) -> None:
    found = rows(
        "select distinct marketplace, product_id, sku, gtin, stock_quantity, status "
        "from intermediate.int_products__versions where marketplace <> 'olist' order by 1, 2"
    )
    assert found == [
        ("demo_shop", "7", "SKU-7", "04006381333931", 1000, "active"),
        ("online_retail", "85123A", "85123A", None, None, None),
        ("online_retail", "M", "M", None, None, None),
        # The stock of the day that made the version, and a code that is no GTIN.
        ("opencart", "9", None, None, 5, "active"),
    ]
