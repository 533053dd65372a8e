"""What was planted, for tests to score against: tables of schema ``truth``, which only the owner can read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from include.demo.catalogue import PROMOTION_LIFT
from include.demo.dirt import Dirt
from include.demo.outlet import order_number, sku_code
from include.demo.people import People
from include.demo.simulate import Simulation

DDL = """
create table truth.elasticity (
  marketplace text, category text, own_price_elasticity double precision, promotion_lift double precision);
create table truth.vendor (
  marketplace text, vendor_id text, late_rate double precision, is_late_vendor boolean, handling_days double precision);
create table truth.customer (
  marketplace text, customer_id text, email text, orders_per_year double precision, base_hazard double precision,
  is_one_timer boolean, is_fraudster boolean, faded_on date, churned_on date);
create table truth.churn_hazard (
  marketplace text, customer_id text, as_of date, daily_hazard double precision,
  churn_probability_30d double precision);
create table truth.fraud_order (marketplace text, order_id text, burst integer);
create table truth.promotion (
  marketplace text, product_id text, first_on date, last_on date, discount double precision,
  expected_lift double precision);
create table truth.price_change (
  marketplace text, product_id text, changed_on date, old_price numeric(15,4), new_price numeric(15,4));
create table truth.late_order (marketplace text, order_id text, days_late double precision);
create table truth.same_product (gtin text, shop_product_id text, outlet_product_id text);
create table truth.dirt (
  source text, entity text, kind text, key text, partition_on date, file text, line integer, detail text);
create index on truth.dirt (source, entity, partition_on);
create index on truth.churn_hazard (as_of);
"""


def truth_tables(
    shops: dict[str, Simulation], people: People, gtins: dict[str, list[str]], dirt: list[Dirt]
) -> dict[str, pa.Table]:
    """One Arrow table for each table of schema ``truth`` but the marker. ``shops`` and ``gtins`` by marketplace name.

    Ids are the source systems' own. A churn date is the first day on which the customer could not come back.
    """
    parts: dict[str, list[pa.Table]] = {}
    for marketplace, sim in shops.items():
        for table, columns in _of_shop(marketplace, sim, people).items():
            n = len(next(iter(columns.values())))
            rows = pa.table({"marketplace": pa.array([marketplace] * n, pa.string()), **columns})
            parts.setdefault(table, []).append(rows)
    tables = {name: pa.concat_tables(rows) for name, rows in parts.items()}
    names = ("source", "entity", "kind", "key", "partition_on", "file", "line", "detail")
    tables["same_product"] = _same_products(gtins)
    tables["dirt"] = pa.table({name: [getattr(flaw, name) for flaw in dirt] for name in names})
    return tables


def _same_products(gtins: dict[str, list[str]]) -> pa.Table:
    in_shop = {gtin: str(sku + 1) for sku, gtin in enumerate(gtins["demo_shop"]) if gtin}
    rows = [(gtin, in_shop[gtin], sku_code(sku)) for sku, gtin in enumerate(gtins["demo_outlet"]) if gtin in in_shop]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    names = ("gtin", "shop_product_id", "outlet_product_id")
    return pa.table({name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)})


def _of_shop(marketplace: str, sim: Simulation, people: People) -> dict[str, dict]:
    cat, customers, orders = sim.catalogue, sim.customers, sim.orders
    is_shop = marketplace == "demo_shop"
    vendor_ids = [str(v + 1) if is_shop else f"V-{v + 1:02d}" for v in range(len(cat.vendor_name))]
    product_ids = np.array([str(s + 1) if is_shop else sku_code(s) for s in range(len(cat.name))])
    n = orders["ordered"].size
    order_ids = np.array([str(i + 1) if is_shop else order_number(i) for i in range(n)])
    # The outlet has no customer numbers: its customers are their addresses.
    email = people.email[customers.person]
    customer_ids = np.array([str(i + 1) for i in range(email.size)]) if is_shop else email
    fraud = np.flatnonzero(orders["burst"] >= 0)
    is_fraudster = np.zeros(email.size, bool)
    is_fraudster[orders["customer"][fraud]] = True
    late = np.flatnonzero((orders["delivered"] < sim.end) & (orders["delivered"] > orders["estimated"]))
    promo, change = cat.promotions, cat.price_changes
    hazard = sim.hazards["hazard"]
    return {
        "elasticity": {
            "category": [c.name for c in cat.categories],
            "own_price_elasticity": [c.elasticity for c in cat.categories],
            "promotion_lift": [PROMOTION_LIFT] * len(cat.categories),
        },
        "vendor": {
            "vendor_id": vendor_ids,
            "late_rate": cat.vendor_late_rate,
            "is_late_vendor": cat.vendor_is_late,
            "handling_days": cat.vendor_handling,
        },
        "customer": {
            "customer_id": customer_ids,
            "email": email,
            "orders_per_year": customers.orders_per_day * 365,
            "base_hazard": customers.base_hazard,
            "is_one_timer": customers.is_one_timer,
            "is_fraudster": is_fraudster,
            "faded_on": _date(sim, customers.faded_on),
            "churned_on": _date(sim, customers.gone_on),
        },
        "churn_hazard": {
            "customer_id": customer_ids[sim.hazards["customer"]],
            "as_of": _date(sim, sim.hazards["day"]),
            "daily_hazard": hazard,
            "churn_probability_30d": 1 - (1 - np.minimum(hazard, 1)) ** 30,
        },
        "fraud_order": {"order_id": order_ids[fraud], "burst": orders["burst"][fraud]},
        "promotion": {
            "product_id": product_ids[promo["sku"]],
            "first_on": _date(sim, promo["first_day"]),
            "last_on": _date(sim, promo["last_day"]),
            "discount": promo["discount"],
            "expected_lift": promo["lift"],
        },
        "price_change": {
            "product_id": product_ids[change["sku"]],
            "changed_on": _date(sim, change["day"]),
            "old_price": change["old_cents"] / 100.0,
            "new_price": change["new_cents"] / 100.0,
        },
        "late_order": {
            "order_id": order_ids[late],
            "days_late": (orders["delivered"][late] - orders["estimated"][late]) / 86_400,
        },
    }


def _date(sim: Simulation, offset: np.ndarray) -> pa.Array:
    """Day offsets as dates; -1 (and days after the last) as null."""
    offset = np.asarray(offset, dtype=np.int64)
    outside = (offset < 0) | (offset > sim.n_days)
    return pa.array((np.datetime64(sim.first_day) + offset).astype("datetime64[D]"), mask=outside)
