"""An OpenCart shop on MariaDB, filled with a few hundred orders: what the tests recount is kept beside as it was made.

The tables are those of 4.0.2.3's installer (`../shared/data`); `as_3_0` and `as_4_1` change them into those of the
other versions, as far as Emporium reads them.
"""

import html
import json
import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from include.settings import ROOT
from tests.integration.mariadb import MariaDB

SCHEMA = ROOT.parent / "shared" / "data" / "opencart" / "schema-4.0.2.3.sql"
ZERO = "0000-00-00 00:00:00"
FIRST, LAST = date(2024, 3, 20), date(2024, 4, 9)

CURRENCIES = {"EUR": ("1.00000000", 2), "USD": ("1.08561234", 2), "JPY": ("163.25000000", 0)}
STATUSES = {1: "created", 2: "approved", 3: "shipped", 5: "delivered", 7: "canceled", 11: "returned"}
PATHS = ([1], [1, 2], [1, 2, 3], [1, 2, 3, 5], [1, 2, 3, 5, 11], [1, 7], [1, 17], [2, 3, 9])
READ = (
    "order", "order_product", "order_option", "order_total", "order_history", "return", "return_history",
    "coupon_history", "review", "customer", "product", "product_description", "product_option",
    "product_option_value", "option_description", "option_value_description", "product_to_category", "category",
    "category_description", "coupon", "order_status", "return_status", "return_reason", "manufacturer", "currency",
    "language",
)  # fmt: skip

AS_3_0 = [
    "alter table oc_order drop subscription_id, drop transaction_id, drop payment_address_id, drop language_code, "
    "drop shipping_address_id, add fax varchar(32) not null, add payment_code varchar(128) not null, "
    "add shipping_code varchar(128) not null, modify payment_method varchar(128) not null, "
    "modify shipping_method varchar(128) not null",
    "alter table oc_order_product drop master_id",
    "alter table oc_order_total drop extension",
    "alter table oc_product drop master_id, drop variant, drop override, drop rating, "
    "add viewed int(5) not null default 0",
    "alter table oc_customer drop safe, add safe tinyint(1) not null, add fax varchar(32) not null, "
    "add salt varchar(9) not null, add cart text, add wishlist text, add address_id int(11) not null default 0",
    "alter table oc_language drop extension, add image varchar(64) not null, add directory varchar(32) not null",
    "alter table oc_manufacturer modify image varchar(255) default null",
    *(f"alter table oc_{name} engine = MyISAM" for name in READ),
]
"""3.0: no subscriptions, codes of payment and shipping apart from their names, all tables MyISAM."""

AS_4_1 = [
    "alter table oc_product drop sku, drop upc, drop ean, drop jan, drop isbn, drop mpn, add sales int(11) default 0",
    "create table oc_identifier (identifier_id int(11) not null auto_increment primary key, name varchar(64), "
    "code varchar(48), validation varchar(255), status tinyint(1) default 0)",
    "create table oc_product_code (product_code_id int(11) not null auto_increment primary key, product_id int(11), "
    "identifier_id varchar(11), value varchar(255))",
    "alter table oc_product_discount add type char(1) default 'P', add special tinyint(1) default 0",
    "alter table oc_option add validation varchar(255)",
    "drop table oc_product_special",
    "drop table oc_order_voucher",
]
"""4.1: codes of products in a table of their own, specials among the discounts; and nothing but keys is not null."""


class Shop:
    """What is in the shop, as plain rows; local times of Berlin."""

    def __init__(self, version: str = "4.0", n_orders: int = 300, seed: int = 7) -> None:
        self.version, self.random = version, random.Random(seed)
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._catalogue()
        self._orders(n_orders)

    def add(self, table: str, **row: Any) -> dict[str, Any]:
        rows = self.rows.setdefault(table, [])
        rows.append(row)
        return row

    def _catalogue(self) -> None:
        for number, code, name in ((1, "en-gb", "English"), (2, "de-de", "Deutsch")):
            self.add("language", language_id=number, name=name, code=code, status=1)
        for number, (code, (value, places)) in enumerate(CURRENCIES.items(), 1):
            self.add("currency", currency_id=number, title=code, code=code, decimal_place=places, value=value, status=1,
                     date_modified=ZERO)  # fmt: skip
        for language in (1, 2):
            for number in (*STATUSES, 9, 17):
                self.add("order_status", order_status_id=number, language_id=language, name=f"Status {number}")
            for number in (1, 2, 3):
                self.add("return_status", return_status_id=number, language_id=language, name=f"Return {number}")
                self.add("return_reason", return_reason_id=number, language_id=language, name=f"Reason {number}")
        for number in range(1, 6):
            self.add("manufacturer", manufacturer_id=number, name=html.escape(f"Maker & Sons {number}"))
        for number in range(1, 7):
            self.add("category", category_id=number, parent_id=0 if number < 4 else 1, status=1,
                     date_added="2024-01-01 00:00:00", date_modified=ZERO)  # fmt: skip
            for language, word in ((1, "Cups & Plates"), (2, "Tassen & Teller")):
                self.add("category_description", category_id=number, language_id=language,
                         name=html.escape(f"{word} {number}"))  # fmt: skip
        for number in range(1, 41):
            price = Decimal(self.random.randrange(199, 19900)) / 100
            product = self.add(
                "product", product_id=number, model=f"M{number:03}", manufacturer_id=number % 6, price=price,
                quantity=50, status=1, date_available="0000-00-00" if number % 3 else "2024-01-01",
                date_added="2024-01-01 00:00:00", date_modified=ZERO,
            )  # fmt: skip
            if self.version == "4.1":
                self.add("product_code", product_id=number, identifier_id="2", value=f"SKU-{number}")
                self.add("product_code", product_id=number, identifier_id="1", value=f"40000{number}")
            else:
                product["sku"] = f"SKU-{number}"
            for language, word in ((1, "mug"), (2, "Becher")):
                if (number, language) != (40, 1):  # the last product has no English name
                    self.add("product_description", product_id=number, language_id=language,
                             name=html.escape(f"Tom & Jerry's \"{number}\" <{word}>"))  # fmt: skip
            for category in {1 + number % 6, 1 + number % 4}:
                self.add("product_to_category", product_id=number, category_id=category)
        if self.version == "4.1":
            for number, code in ((1, "ean"), (2, "sku")):
                self.add("identifier", identifier_id=number, name=code, code=code, status=1)
        for number in (1, 2):
            for language, word in ((1, "Colour"), (2, "Farbe")):
                self.add("option_description", option_id=number, language_id=language, name=f"{word} {number}")
                self.add("option_value_description", option_value_id=number, option_id=number, language_id=language,
                         name=html.escape(f"{word} & co"))  # fmt: skip
            self.add("product_option", product_option_id=number, product_id=number, option_id=number, required=1)
            self.add("product_option_value", product_option_value_id=number, product_option_id=number,
                     product_id=number, option_id=number, option_value_id=number, quantity=9, price="1.5000",
                     price_prefix="+")  # fmt: skip
        self.add("coupon", coupon_id=1, name="Welcome", code="WELCOME10", type="P", discount="10.0000", total=0,
                 date_start="0000-00-00", date_end="2024-12-31", uses_total=9, status=1,
                 date_added="2024-01-01 00:00:00")  # fmt: skip
        for number in range(1, 61):
            self.add("customer", customer_id=number, customer_group_id=1, store_id=0, language_id=1 + number % 2,
                     firstname="Ann", lastname=f"Person{number}", email=self.email(number), telephone="123",
                     password="$2y$10$hash", newsletter=number % 2, status=1,
                     date_added=f"2024-03-{20 + number % 10} 12:00:00")  # fmt: skip

    @staticmethod
    def email(customer: int) -> str:
        return f"{'Person' if customer % 7 == 0 else 'person'}{customer}@example.org"

    def _orders(self, n: int) -> None:
        span = (LAST - FIRST).days * 24 * 60
        minutes = sorted(self.random.randrange(span) for _ in range(n))
        for number, minute in enumerate(minutes, 1):
            at = datetime.combine(FIRST, datetime.min.time()) + timedelta(minutes=minute + 180)
            self.order(number, at, [] if number % 9 == 0 else self.random.choice(PATHS))

    def order(self, number: int, at: datetime, path: list[int]) -> None:
        """An order that went through ``path``; without one it is an abandoned checkout, which may have been edited."""
        customer = 1 + number % 60
        code = list(CURRENCIES)[number % 3]
        # Some are paid the day after the checkout was begun.
        paid = at + timedelta(days=1 if number % 25 == 0 else 0)
        times = [paid + timedelta(hours=15 * step, minutes=step) for step in range(len(path))]
        kept = [(when, status) for when, status in zip(times, path, strict=True) if when.date() <= LAST]
        payment: dict[str, Any] = {"payment_method": json.dumps({"name": "Cash On Delivery", "code": "cod.cod"})}
        if self.version == "3.0":
            payment = {"payment_method": "Cash On Delivery", "payment_code": "cod"}
        unknown = None if self.version == "4.1" else ZERO
        modified: Any = kept[-1][0] if kept else at
        order = self.add(
            "order", order_id=number, invoice_no=0, customer_id=customer, customer_group_id=1, firstname="Ann",
            lastname="Person", email=self.email(customer), telephone="123", payment_country="Germany",
            payment_zone="", shipping_country="Germany", shipping_zone=html.escape(f"North & South {customer % 3}"),
            order_status_id=kept[-1][1] if kept else 0, language_id=1, currency_code=code,
            currency_value=CURRENCIES[code][0], date_added=at,
            # Not touched by everybody.
            date_modified=unknown if number % 20 == 0 else modified, **payment,
        )  # fmt: skip
        # Whoever edits an order in the back office begins with status 0, an abandoned checkout too.
        begun = [(at + timedelta(minutes=1), 0)] if number % 27 == 0 or number % 25 == 0 else []
        for when, status in [*begun, *kept]:
            self.add("order_history", order_id=number, order_status_id=status, notify=1, comment="call me",
                     date_added=when)  # fmt: skip
        items = [self.item(order) for _ in range(1 + number % 3)]
        self.totals(order, items, Decimal("4.99") if number % 2 else Decimal(0), number % 10 == 0)
        if path[-1:] == [11] and kept and kept[-1][1] == 11:
            self.add("return", return_id=number, order_id=number, product_id=items[0]["product_id"], quantity=1,
                     customer_id=customer, firstname="Ann", lastname="P", email="a@example.org", telephone="1",
                     product="Mug", model="M", opened=1, return_reason_id=1, return_action_id=0, return_status_id=2,
                     comment="broken", date_ordered="0000-00-00", date_added=kept[-1][0],
                     date_modified=kept[-1][0])  # fmt: skip
            self.add("return_history", return_id=number, return_status_id=2, notify=0, comment="",
                     date_added=kept[-1][0])  # fmt: skip
        if kept and number % 11 == 0:
            self.add("review", product_id=items[0]["product_id"], customer_id=customer, author="Ann Person",
                     text="Good &amp; cheap, write to me@example.org", rating=1 + number % 5, status=1,
                     date_added=kept[-1][0], date_modified=ZERO if self.version != "4.1" else None)  # fmt: skip

    def item(self, order: dict[str, Any]) -> dict[str, Any]:
        product = self.random.choice(self.rows["product"])
        quantity = self.random.randrange(1, 4)
        number = len(self.rows.get("order_product", ())) + 1
        item = self.add("order_product", order_product_id=number, order_id=order["order_id"],
                        product_id=product["product_id"], name=html.escape("Tom & Jerry"), model=product["model"],
                        quantity=quantity, price=product["price"], total=product["price"] * quantity,
                        tax=0)  # fmt: skip
        if number % 5 == 0:
            for chosen in (0, 1):
                self.add("order_option", order_id=order["order_id"], order_product_id=number, product_option_id=1,
                         product_option_value_id=chosen, name="Colour", type="select" if chosen else "text",
                         value="Blue &amp; red" if chosen else "For my Ann")  # fmt: skip
        return item

    def totals(self, order: dict[str, Any], items: list, shipping: Decimal, has_coupon: bool) -> None:
        """The lines of an order's total, and the total."""
        sub_total = sum((item["total"] for item in items), Decimal(0))
        coupon = -(sub_total / 10).quantize(Decimal("0.0001")) if has_coupon else Decimal(0)
        tax = (sub_total * Decimal("0.19")).quantize(Decimal("0.0001"))
        total = sub_total + shipping + coupon + tax
        order["total"] = total
        lines = [("sub_total", sub_total), ("shipping", shipping), ("coupon", coupon), ("tax", tax),
                 ("extension_fee", Decimal(0)), ("total", total)]  # fmt: skip
        for place, (code, value) in enumerate(lines):
            if value or code in ("total", "extension_fee"):
                self.add("order_total", order_id=order["order_id"], code=code, title=code, value=value,
                         sort_order=place)  # fmt: skip
        if has_coupon:
            self.add("coupon_history", coupon_id=1, order_id=order["order_id"], customer_id=order["customer_id"],
                     amount=coupon, date_added=order["date_added"])  # fmt: skip

    # --- in the database -------------------------------------------------------------------------

    def create(self, server: MariaDB, database: str) -> None:
        """A database with the version's tables and all rows."""
        server.run(None, f"create database {database} default charset utf8mb4 collate utf8mb4_general_ci")
        wanted = {f"oc_{name}" for name in (*READ, "option", "product_discount", "product_special", "order_voucher")}
        tables = [one for one in SCHEMA.read_text().split(";\n") if one.split("`")[1:2] and one.split("`")[1] in wanted]
        assert len(tables) == len(wanted)
        server.run(database, *tables, *{"3.0": AS_3_0, "4.0": [], "4.1": AS_4_1}[self.version])
        if self.version == "4.1":
            server.run(database, *_all_nullable(server, database))
        for table, rows in self.rows.items():
            self.insert(server, database, table, rows)

    @staticmethod
    def insert(server: MariaDB, database: str, table: str, rows: list[dict[str, Any]]) -> None:
        alike: dict[tuple[str, ...], list[list[Any]]] = {}
        for row in rows:
            alike.setdefault(tuple(row), []).append(list(row.values()))
        with server.connect(database) as connection, connection.cursor() as cursor:
            for columns, values in alike.items():
                names = ", ".join(f"`{name}`" for name in columns)
                marks = ", ".join(["%s"] * len(columns))
                cursor.executemany(f"insert into oc_{table} ({names}) values ({marks})", values)


def _all_nullable(server: MariaDB, database: str) -> list[str]:
    names = ", ".join(f"'oc_{name}'" for name in READ)
    found = server.query(
        database,
        "select table_name, group_concat(concat('modify `', column_name, '` ', column_type, ' null') separator ', ') "
        f"from information_schema.columns where table_schema = '{database}' and table_name in ({names}) "
        "and column_key <> 'PRI' group by table_name",
    )
    return [f"alter table {table} {changes}" for table, changes in found]


def has_schema() -> Path | None:
    """The installer's schema, None where the shared data are not at hand."""
    return SCHEMA if SCHEMA.is_file() else None
