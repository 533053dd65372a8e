"""The shop's database: OpenCart's tables (and a vendor extension) as Arrow tables, one a table."""

from __future__ import annotations

import html

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.demo import aftermath
from include.demo.catalogue import ZONES
from include.demo.dirt import Dirt
from include.demo.people import People
from include.demo.simulate import DAY, NEVER, Simulation, status_changes

PENDING, PROCESSING, SHIPPED, COMPLETE, CANCELED, APPROVED_UNUSED, REFUNDED = 1, 2, 3, 5, 7, 13, 11
STATUS_NAMES = {
    PENDING: "Pending",
    PROCESSING: "Processing",
    SHIPPED: "Shipped",
    COMPLETE: "Complete",
    CANCELED: "Canceled",
    REFUNDED: "Refunded",
    APPROVED_UNUSED: "Approved",
}
_STATUS_ID = np.array([PENDING, PROCESSING, SHIPPED, COMPLETE, CANCELED, REFUNDED])
PAYMENT_METHODS = ("Credit Card", "PayPal", "Bank Transfer", "Cash On Delivery")
RETURN_REASONS = {1: "Dead On Arrival", 2: "Received Wrong Item", 3: "Changed Mind", 4: "Arrived Too Late"}
COUPONS = (("newsletter", "WELCOME10"), ("social", "GIFT4YOU"))
"""The campaign, which is the coupon's name, and its code."""
TAX_RATE = 0.07
FREE_SHIPPING_CENTS = 12_000

DDL = """
create table shop.oc_order (
  order_id integer not null, invoice_no integer not null, customer_id integer not null, firstname text not null,
  lastname text not null, email text not null, telephone text not null, shipping_zone text not null,
  shipping_country text not null, payment_method text not null, total numeric(15,4) not null,
  order_status_id integer not null, currency_code text not null, currency_value numeric(15,8) not null,
  date_added timestamp not null, date_modified timestamp not null);
create table shop.oc_order_product (
  order_product_id integer not null, order_id integer not null, product_id integer not null, name text not null,
  model text not null, quantity integer not null, price numeric(15,4) not null, total numeric(15,4) not null,
  tax numeric(15,4) not null);
create table shop.oc_order_total (
  order_total_id integer not null, order_id integer not null, code text not null, title text not null,
  value numeric(15,4) not null);
create table shop.oc_order_history (
  order_history_id integer not null, order_id integer not null, order_status_id integer not null,
  comment text not null, date_added timestamp not null);
create table shop.oc_order_status (order_status_id integer not null, language_id integer not null, name text not null);
create table shop.oc_return (
  return_id integer not null, order_id integer not null, product_id integer not null, customer_id integer not null,
  quantity integer not null, return_reason_id integer not null, date_added timestamp not null);
create table shop.oc_return_reason (
  return_reason_id integer not null, language_id integer not null, name text not null);
create table shop.oc_customer (
  customer_id integer not null, firstname text not null, lastname text not null, email text not null,
  telephone text not null, zone text not null, country text not null, date_added timestamp not null);
create table shop.oc_product (
  product_id integer not null, model text not null, sku text not null, ean text not null, price numeric(15,4) not null,
  quantity integer not null, status smallint not null, date_added timestamp not null,
  date_modified timestamp not null);
create table shop.oc_product_description (
  product_id integer not null, language_id integer not null, name text not null);
create table shop.oc_category_description (
  category_id integer not null, language_id integer not null, name text not null);
create table shop.oc_product_to_category (product_id integer not null, category_id integer not null);
create table shop.oc_product_special (
  product_special_id integer not null, product_id integer not null, price numeric(15,4) not null,
  date_start date not null, date_end date not null);
create table shop.oc_vendor (
  vendor_id integer not null, name text not null, zone text not null, date_added timestamp not null);
create table shop.oc_vendor_product (vendor_id integer not null, product_id integer not null);
create table shop.oc_product_price_log (
  product_price_log_id integer not null, product_id integer not null, price numeric(15,4) not null,
  date_added timestamp not null);
create table shop.oc_product_stock_log (
  product_stock_log_id integer not null, product_id integer not null, quantity integer not null,
  date_added timestamp not null);
create table shop.oc_customer_transaction (
  customer_transaction_id integer not null, customer_id integer not null, order_id integer not null,
  description text not null, amount numeric(15,4) not null, date_added timestamp not null);
create table shop.oc_coupon (
  coupon_id integer not null, name text not null, code text not null, type text not null,
  discount numeric(15,4) not null, date_start date not null, date_end date not null, date_added timestamp not null);
create table shop.oc_coupon_history (
  coupon_history_id integer not null, coupon_id integer not null, order_id integer not null,
  customer_id integer not null, amount numeric(15,4) not null, date_added timestamp not null);
create table shop.oc_review (
  review_id integer not null, product_id integer not null, customer_id integer not null, author text not null,
  text text not null, rating integer not null, status smallint not null, date_added timestamp not null,
  date_modified timestamp not null);
"""

INDEXES = """
alter table shop.oc_order add primary key (order_id);
alter table shop.oc_order_product add primary key (order_product_id);
alter table shop.oc_order_total add primary key (order_total_id);
alter table shop.oc_order_history add primary key (order_history_id);
alter table shop.oc_order_status add primary key (order_status_id, language_id);
alter table shop.oc_return add primary key (return_id);
alter table shop.oc_return_reason add primary key (return_reason_id, language_id);
alter table shop.oc_customer add primary key (customer_id);
alter table shop.oc_product add primary key (product_id);
alter table shop.oc_product_description add primary key (product_id, language_id);
alter table shop.oc_category_description add primary key (category_id, language_id);
alter table shop.oc_product_to_category add primary key (product_id, category_id);
alter table shop.oc_product_special add primary key (product_special_id);
alter table shop.oc_vendor add primary key (vendor_id);
alter table shop.oc_vendor_product add primary key (vendor_id, product_id);
alter table shop.oc_product_price_log add primary key (product_price_log_id);
alter table shop.oc_product_stock_log add primary key (product_stock_log_id);
alter table shop.oc_customer_transaction add primary key (customer_transaction_id);
alter table shop.oc_coupon add primary key (coupon_id);
alter table shop.oc_coupon_history add primary key (coupon_history_id);
alter table shop.oc_review add primary key (review_id);
create index on shop.oc_order (date_added);
create index on shop.oc_order_product (order_id);
create index on shop.oc_order_total (order_id);
create index on shop.oc_order_history (date_added);
create index on shop.oc_order_history (order_id);
create index on shop.oc_return (date_added);
create index on shop.oc_customer (date_added);
create index on shop.oc_product (date_added);
create index on shop.oc_product_special (product_id, date_start);
create index on shop.oc_vendor (date_added);
create index on shop.oc_product_price_log (product_id, date_added);
create index on shop.oc_product_stock_log (date_added);
create index on shop.oc_customer_transaction (date_added);
create index on shop.oc_coupon_history (date_added);
create index on shop.oc_review (date_added);
"""


def shop_tables(
    sim: Simulation, people: People, gtins: list[str], rng: np.random.Generator, rng_aftermath: np.random.Generator
) -> tuple[dict[str, pa.Table], list[Dirt]]:
    """Every table of schema ``shop`` as of the end of the last day, and the planted oddities. ``gtins`` by SKU.

    ``oc_order`` and ``oc_product`` keep what they were when added (only an order's status and
    ``date_modified`` move); ``oc_order_history``, ``oc_product_price_log`` and
    ``oc_product_stock_log`` tell what changed, and when.
    """
    tables = _catalogue_tables(sim, gtins) | _customer_table(sim, people)
    orders, dirt = _order_tables(sim, people, rng)
    return tables | orders | _aftermath_tables(sim, people, orders["oc_order_total"], rng_aftermath), dirt


def product_name(name: str) -> str:
    """A name the way OpenCart stores it: HTML-escaped."""
    return html.escape(name)


def _order_tables(sim: Simulation, people: People, rng: np.random.Generator) -> tuple[dict[str, pa.Table], list[Dirt]]:
    orders, lines, cat = sim.orders, sim.lines, sim.catalogue
    n = orders["ordered"].size
    order_id = np.arange(1, n + 1)
    person = sim.customers.person[orders["customer"]]
    line_total = lines["quantity"] * lines["cents"]
    line_tax = np.round(lines["cents"] * TAX_RATE).astype(np.int64)
    subtotal = np.bincount(lines["order"], line_total, minlength=n).astype(np.int64)
    tax = np.bincount(lines["order"], line_tax * lines["quantity"], minlength=n).astype(np.int64)
    shipping = np.where(subtotal >= FREE_SHIPPING_CENTS, 0, 399 + 100 * np.bincount(lines["order"], minlength=n))
    coupon = np.where(rng.random(n) < 0.06, -np.round(subtotal * 0.10).astype(np.int64), 0)
    total = subtotal + tax + shipping + coupon

    changes = status_changes(sim)
    status_id = np.zeros(n, dtype=np.int64)
    status_id[changes["order"]] = _STATUS_ID[changes["status"]]
    modified = orders["ordered"].copy()
    modified[changes["order"]] = changes["at"]
    promise = np.datetime_as_string((orders["estimated"] // DAY).astype("datetime64[D]"))
    comment = np.full(changes["order"].size, "", dtype=object)
    is_promise = _STATUS_ID[changes["status"]] == PROCESSING
    comment[is_promise] = np.char.add("Estimated delivery: ", promise[changes["order"][is_promise]])

    email = people.email[person].astype(object)
    loud = np.flatnonzero(rng.random(n) < 0.02)
    email[loud] = [text.replace("example", "Example").capitalize() for text in email[loud]]
    dirt = [
        Dirt("demo_shop", "oc_order", "email_in_capitals", str(i + 1), _day(orders["ordered"][i]))
        for i in loud.tolist()
    ]
    tables = {
        "oc_order": pa.table(
            {
                "order_id": order_id,
                "invoice_no": np.where(status_id > 0, order_id, 0),
                "customer_id": orders["customer"] + 1,
                "firstname": _take(people.first, person),
                "lastname": _take(people.last, person),
                "email": pa.array(email, pa.string()),
                "telephone": _take(people.telephone, person),
                "shipping_zone": _take(ZONES, people.zone[person]),
                "shipping_country": ["United States"] * n,
                "payment_method": _take(PAYMENT_METHODS, rng.choice(4, n, p=[0.62, 0.24, 0.09, 0.05])),
                "total": _money(total),
                "order_status_id": status_id,
                "currency_code": ["USD"] * n,
                "currency_value": np.ones(n),
                "date_added": _time(orders["ordered"]),
                "date_modified": _time(modified),
            }
        ),
        "oc_order_product": pa.table(
            {
                "order_product_id": np.arange(1, lines["order"].size + 1),
                "order_id": lines["order"] + 1,
                "product_id": lines["sku"] + 1,
                "name": _take([product_name(name) for name in cat.name], lines["sku"]),
                "model": _take(_models(cat.name), lines["sku"]),
                "quantity": lines["quantity"],
                "price": _money(lines["cents"]),
                "total": _money(line_total),
                "tax": _money(line_tax),
            }
        ),
        "oc_order_total": _order_totals(order_id, subtotal, shipping, coupon, tax, total),
        "oc_order_history": pa.table(
            {
                "order_history_id": np.arange(1, changes["order"].size + 1),
                "order_id": changes["order"] + 1,
                "order_status_id": _STATUS_ID[changes["status"]],
                "comment": pa.array(comment, pa.string()),
                "date_added": _time(changes["at"]),
            }
        ),
        "oc_order_status": pa.table(
            {"order_status_id": list(STATUS_NAMES), "language_id": [1] * 7, "name": list(STATUS_NAMES.values())}
        ),
        "oc_return": _returns(sim, rng),
        "oc_return_reason": pa.table(
            {"return_reason_id": list(RETURN_REASONS), "language_id": [1] * 4, "name": list(RETURN_REASONS.values())}
        ),
    }
    return tables, dirt


def _order_totals(
    order_id: np.ndarray,
    subtotal: np.ndarray,
    shipping: np.ndarray,
    coupon: np.ndarray,
    tax: np.ndarray,
    total: np.ndarray,
) -> pa.Table:
    parts = (
        ("sub_total", "Sub-Total", subtotal, subtotal >= 0),
        ("shipping", "Flat Shipping Rate", shipping, shipping > 0),
        ("coupon", "Coupon (WELCOME10)", coupon, coupon < 0),
        ("tax", "Sales Tax", tax, tax > 0),
        ("total", "Total", total, subtotal >= 0),
    )
    order = np.concatenate([order_id[there] for *_, there in parts])
    part = np.concatenate([np.full(int(there.sum()), i) for i, (*_, there) in enumerate(parts)])
    value = np.concatenate([values[there] for _, _, values, there in parts])
    rank = np.lexsort((part, order))
    return pa.table(
        {
            "order_total_id": np.arange(1, order.size + 1),
            "order_id": order[rank],
            "code": _take([p[0] for p in parts], part[rank]),
            "title": _take([p[1] for p in parts], part[rank]),
            "value": _money(value[rank]),
        }
    )


def _returns(sim: Simulation, rng: np.random.Generator) -> pa.Table:
    lines, orders = sim.lines, sim.orders
    back = aftermath.returned_lines(sim)
    order = lines["order"][back]
    is_late = orders["delivered"][order] > orders["estimated"][order]
    reason = np.where(is_late & (rng.random(back.size) < 0.6), 4, rng.integers(1, 4, back.size))
    return pa.table(
        {
            "return_id": np.arange(1, back.size + 1),
            "order_id": order + 1,
            "product_id": lines["sku"][back] + 1,
            "customer_id": orders["customer"][order] + 1,
            "quantity": lines["quantity"][back],
            "return_reason_id": reason,
            "date_added": _time(lines["returned"][back]),
        }
    )


def _aftermath_tables(
    sim: Simulation, people: People, totals: pa.Table, rng: np.random.Generator
) -> dict[str, pa.Table]:
    """Credit notes for what came back, coupons and their use, reviews, and what was counted in the warehouse."""
    lines, orders = sim.lines, sim.orders
    back, paid_at = aftermath.returned_lines(sim), aftermath.paid_back(sim, rng)
    paid = np.flatnonzero(paid_at < sim.end)
    paid = paid[np.argsort(paid_at[paid], kind="stable")]
    line = back[paid]
    with_tax = lines["cents"] + np.round(lines["cents"] * TAX_RATE).astype(np.int64)
    found = aftermath.reviews(sim, rng)
    customer = orders["customer"][lines["order"][found["line"]]]
    counts = aftermath.stock_counts(sim)
    return {
        "oc_customer_transaction": pa.table(
            {
                "customer_transaction_id": np.arange(1, paid.size + 1),
                "customer_id": orders["customer"][lines["order"][line]] + 1,
                "order_id": lines["order"][line] + 1,
                "description": [f"Return #{number + 1}" for number in paid.tolist()],
                "amount": _money(lines["quantity"][line] * with_tax[line]),
                "date_added": _time(paid_at[paid]),
            }
        ),
        "oc_coupon": pa.table(
            {
                "coupon_id": [1, 2],
                "name": [campaign for campaign, _ in COUPONS],
                "code": [code for _, code in COUPONS],
                "type": ["P", "F"],
                "discount": [10.0, 0.0],
                "date_start": _date(sim, np.zeros(2, np.int64)),
                "date_end": _date(sim, np.full(2, sim.n_days - 1)),
                "date_added": _time(np.full(2, sim.start)),
            }
        ),
        "oc_coupon_history": _coupon_history(sim, totals, aftermath.gifts(sim, rng)),
        "oc_review": pa.table(
            {
                "review_id": np.arange(1, customer.size + 1),
                "product_id": lines["sku"][found["line"]] + 1,
                "customer_id": customer + 1,
                "author": _take(people.first, sim.customers.person[customer]),
                "text": [("It came, and this is what I think of it. " * 40)[:n] for n in found["n_characters"]],
                "rating": found["rating"],
                "status": found["is_approved"].astype(np.int64),
                "date_added": _time(found["at"]),
                "date_modified": _time(found["at"]),
            }
        ),
        "oc_product_stock_log": pa.table(
            {
                "product_stock_log_id": np.arange(1, counts["sku"].size + 1),
                "product_id": counts["sku"] + 1,
                "quantity": counts["quantity"],
                "date_added": _time(counts["at"]),
            }
        ),
    }


def _coupon_history(sim: Simulation, totals: pa.Table, gifts: np.ndarray) -> pa.Table:
    """A row for each coupon in an order's total, and for the gifts of the orders without one."""
    taken_off = totals.filter(pc.equal(totals["code"], "coupon"))
    discounted = taken_off["order_id"].to_numpy() - 1
    is_real = ~sim.orders["is_abandoned"][discounted]
    gifts = np.setdiff1d(gifts, discounted)
    order = np.concatenate([discounted[is_real], gifts])
    amount = np.concatenate([taken_off["value"].to_numpy()[is_real], np.zeros(gifts.size)])
    coupon = np.repeat([1, 2], [int(is_real.sum()), gifts.size])
    rank = np.argsort(order)
    return pa.table(
        {
            "coupon_history_id": np.arange(1, order.size + 1),
            "coupon_id": coupon[rank],
            "order_id": order[rank] + 1,
            "customer_id": sim.orders["customer"][order[rank]] + 1,
            "amount": amount[rank],
            "date_added": _time(sim.orders["ordered"][order[rank]]),
        }
    )


def _customer_table(sim: Simulation, people: People) -> dict[str, pa.Table]:
    person, n = sim.customers.person, sim.customers.person.size
    table = pa.table(
        {
            "customer_id": np.arange(1, n + 1),
            "firstname": _take(people.first, person),
            "lastname": _take(people.last, person),
            "email": pa.array(people.email[person], pa.string()),
            "telephone": _take(people.telephone, person),
            "zone": _take(ZONES, people.zone[person]),
            "country": ["United States"] * n,
            "date_added": _time(sim.customers.signed_up),
        }
    )
    return {"oc_customer": table}


def _catalogue_tables(sim: Simulation, gtins: list[str]) -> dict[str, pa.Table]:
    cat = sim.catalogue
    n, n_vendors = len(cat.name), len(cat.vendor_name)
    product_id, vendor_id = np.arange(1, n + 1), np.arange(1, n_vendors + 1)
    # What was there before the first day is dated at its first minute: history begins there.
    added = sim.start + np.maximum(cat.launch_day, 0) * DAY
    first_price = cat.list_cents[np.maximum(cat.launch_day, 0), np.arange(n)]
    changes, promo = cat.price_changes, cat.promotions
    later = np.flatnonzero(changes["day"] > cat.launch_day[changes["sku"]])
    logged_sku = np.concatenate([np.arange(n), changes["sku"][later]])
    logged_price = np.concatenate([first_price, changes["new_cents"][later]])
    logged_at = np.concatenate([added, sim.start + changes["day"][later] * DAY])
    rank = np.lexsort((logged_sku, logged_at))
    launched = promo["first_day"] >= cat.launch_day[promo["sku"]]
    return {
        "oc_product": pa.table(
            {
                "product_id": product_id,
                "model": _models(cat.name),
                "sku": [f"SKU-{i:05d}" for i in product_id],
                "ean": gtins,
                "price": _money(first_price),
                "quantity": np.full(n, aftermath.FULL_STOCK),
                "status": np.ones(n, np.int64),
                "date_added": _time(added),
                "date_modified": _time(added),
            }
        ),
        "oc_product_description": pa.table(
            {"product_id": product_id, "language_id": np.ones(n, np.int64), "name": [product_name(x) for x in cat.name]}
        ),
        "oc_category_description": pa.table(
            {
                "category_id": np.arange(1, len(cat.categories) + 1),
                "language_id": [1] * len(cat.categories),
                "name": [c.name for c in cat.categories],
            }
        ),
        "oc_product_to_category": pa.table({"product_id": product_id, "category_id": cat.category + 1}),
        "oc_product_special": pa.table(
            {
                "product_special_id": np.arange(1, int(launched.sum()) + 1),
                "product_id": promo["sku"][launched] + 1,
                "price": _money(promo["cents"][launched]),
                "date_start": _date(sim, promo["first_day"][launched]),
                "date_end": _date(sim, promo["last_day"][launched]),
            }
        ),
        "oc_vendor": pa.table(
            {
                "vendor_id": vendor_id,
                "name": cat.vendor_name,
                "zone": _take(ZONES, cat.vendor_zone),
                "date_added": _time(np.full(n_vendors, sim.start)),
            }
        ),
        "oc_vendor_product": pa.table({"vendor_id": cat.vendor + 1, "product_id": product_id}),
        "oc_product_price_log": pa.table(
            {
                "product_price_log_id": np.arange(1, rank.size + 1),
                "product_id": logged_sku[rank] + 1,
                "price": _money(logged_price[rank]),
                "date_added": _time(logged_at[rank]),
            }
        ),
    }


def _models(names: list[str]) -> list[str]:
    return [f"{name[:2].upper().strip()}{i:04d}" for i, name in enumerate(names, start=1)]


def _take(values: list[str] | tuple[str, ...], index: np.ndarray) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(index))


def _money(cents: np.ndarray) -> np.ndarray:
    """USD. Cents over 100 print with two digits, so Postgres gets the exact amount."""
    return np.asarray(cents) / 100.0


def _time(seconds: np.ndarray) -> pa.Array:
    assert (seconds != NEVER).all()
    return pa.array(np.asarray(seconds).astype("datetime64[s]"))


def _date(sim: Simulation, offset: np.ndarray) -> pa.Array:
    return pa.array(np.datetime64(sim.first_day) + offset)


def _day(seconds: int):
    return np.datetime64(int(seconds), "s").astype("datetime64[D]").item()
