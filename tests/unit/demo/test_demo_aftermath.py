"""What follows a purchase in the demo, and that it changes nothing of who bought what."""

from collections import Counter, defaultdict
from csv import DictReader
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest

from include.demo import SMALL, aftermath, generate


@pytest.fixture(scope="module")
def world():
    return generate(SMALL)


def shop(world, name: str) -> list[dict]:
    return world.shop[name].to_pylist()


def outlet(world, entity: str) -> list[dict]:
    names = sorted(name for name in world.files if name.endswith(f"/{entity}.csv"))
    return [row for name in names for row in DictReader(world.files[name].decode().splitlines())]


NEW = ("oc_customer_transaction", "oc_coupon_history", "oc_review")


def test_what_comes_after_has_randomness_of_its_own(world, monkeypatch):
    """Another luck in the aftermath leaves every other table and file as it was."""
    for name in ("paid_back", "reviews", "gifts", "gtins"):

        def luckier(sim, rng, draw=getattr(aftermath, name)):
            rng.random(1000)
            return draw(sim, rng)

        monkeypatch.setattr(aftermath, name, luckier)
    other = generate(SMALL)
    for name, table in world.shop.items():
        assert (other.shop[name].equals(table)) == (name not in (*NEW, "oc_product")), name
    assert other.shop["oc_product"].drop_columns("ean").equals(world.shop["oc_product"].drop_columns("ean"))
    changed = {name.rsplit("/", 1)[1] for name, content in world.files.items() if other.files[name] != content}
    assert changed == {"refunds.csv", "reviews.csv", "products.csv"}


def test_a_credit_note_follows_its_return_and_pays_what_the_item_cost(world):
    returns = {row["return_id"]: row for row in shop(world, "oc_return")}
    items = {(row["order_id"], row["product_id"]): row for row in shop(world, "oc_order_product")}
    paid = shop(world, "oc_customer_transaction")
    assert len(paid) == len({row["description"] for row in paid})
    assert 0.7 < len(paid) / len(returns) < 1
    for row in paid:
        back = returns[int(row["description"].removeprefix("Return #"))]
        item = items[row["order_id"], back["product_id"]]
        assert back["order_id"] == row["order_id"]
        assert timedelta(days=1) <= row["date_added"] - back["date_added"] <= timedelta(days=9)
        assert round(row["amount"], 2) == round(back["quantity"] * (item["price"] + item["tax"]), 2)


def test_every_coupon_in_a_total_was_used_by_a_real_order(world):
    status = {row["order_id"]: row["order_status_id"] for row in shop(world, "oc_order")}
    total = {row["order_id"]: row["value"] for row in shop(world, "oc_order_total") if row["code"] == "coupon"}
    uses = shop(world, "oc_coupon_history")
    discounts = {row["order_id"]: row["amount"] for row in uses if row["coupon_id"] == 1}
    assert discounts == {order: value for order, value in total.items() if status[order] > 0}
    gifts = [row for row in uses if row["coupon_id"] == 2]
    assert len(gifts) > 5
    assert all(row["amount"] == 0 and status[row["order_id"]] > 0 for row in gifts)
    assert len({row["order_id"] for row in uses}) == len(uses)
    assert {row["name"] for row in shop(world, "oc_coupon")} == {"newsletter", "social"}


def test_reviews_are_of_delivered_goods_and_worse_when_they_came_late(world):
    delivered = {r["order_id"]: r["date_added"] for r in shop(world, "oc_order_history") if r["order_status_id"] == 5}
    bought = defaultdict(set)
    for row in shop(world, "oc_order_product"):
        bought[row["product_id"]].add(row["order_id"])
    of = {row["order_id"]: row["customer_id"] for row in shop(world, "oc_order")}
    reviews = shop(world, "oc_review")
    assert len(reviews) > 50
    for row in reviews:
        orders = [o for o in bought[row["product_id"]] if of[o] == row["customer_id"] and o in delivered]
        assert any(delivered[order] < row["date_added"] for order in orders)
        assert 1 <= row["rating"] <= 5
        assert row["text"]
    ratings = Counter(row["rating"] for row in reviews)
    assert ratings[5] + ratings[4] > ratings[1] + ratings[2]


def test_stock_is_counted_weekly_and_falls_by_what_was_sold(world):
    counts = defaultdict(list)
    for row in shop(world, "oc_product_stock_log"):
        counts[row["product_id"]].append((row["date_added"], row["quantity"]))
    sold = Counter()
    ordered = {r["order_id"]: (r["date_added"].date(), r["order_status_id"]) for r in shop(world, "oc_order")}
    for row in shop(world, "oc_order_product"):
        day, status = ordered[row["order_id"]]
        if status > 0:
            sold[row["product_id"], day] += row["quantity"]
    n_steps = 0
    for product, told in counts.items():
        assert [at for at, _ in told] == sorted(at for at, _ in told)
        for (since, before), (until, after) in pairwise(told):
            assert (until - since).days == aftermath.COUNT_EVERY_DAYS
            units = sum(sold[product, since.date() + timedelta(days=n)] for n in range(aftermath.COUNT_EVERY_DAYS))
            assert (before - after) % aftermath.REORDERED_AFTER == units % aftermath.REORDERED_AFTER
            n_steps += units > 0
    assert n_steps > 50


def test_gtins_are_valid_and_the_shops_share_some(world):
    in_shop = [row["ean"] for row in shop(world, "oc_product")]
    in_outlet = {row["sku"]: row["gtin"] for row in outlet(world, "products")}
    for gtin in (*filter(None, in_shop), *filter(None, in_outlet.values())):
        assert len(gtin) == 13
        assert sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(gtin)) % 10 == 0
    assert "" in in_shop or "" in in_outlet.values()
    known = [gtin for gtin in in_shop if gtin]
    assert len(set(known)) == len(known)
    shared = set(known) & {gtin for gtin in in_outlet.values() if gtin}
    truth = world.truth["same_product"].to_pylist()
    assert shared == {row["gtin"] for row in truth}
    assert 3 <= len(truth) < len(in_outlet)
    categories = dict(
        zip(*(world.shop["oc_product_to_category"][c].to_pylist() for c in ("product_id", "category_id")), strict=True)
    )
    names = {row["category_id"]: row["name"] for row in shop(world, "oc_category_description")}
    of_outlet = {row["sku"]: row["category"] for row in outlet(world, "products")}
    for row in truth:
        assert names[categories[int(row["shop_product_id"])]] == of_outlet[row["outlet_product_id"]]


def test_the_outlet_pays_back_what_its_items_cost_and_tells_of_it_on_the_day(world):
    items = {(row["order_id"], row["line"]): row for row in outlet(world, "order_items")}
    refunds = outlet(world, "refunds")
    assert len(refunds) > 10
    assert len({row["refund_id"] for row in refunds}) == len(refunds)
    n_same = 0
    for row in refunds:
        item = items.get((row["order_id"], row["line"]))
        n_same += item is not None and float(row["amount"]) == pytest.approx(
            int(row["quantity"]) * float(item["unit_price"])
        )
    # Corrections change a few prices and quantities later.
    assert n_same > 0.9 * len(refunds)
    for name in (name for name in world.files if name.endswith(("/refunds.csv", "/reviews.csv"))):
        for row in DictReader(world.files[name].decode().splitlines()):
            assert (row.get("refunded_at") or row["reviewed_at"])[:10] == name.split("/")[1]


def test_nothing_of_the_aftermath_is_dated_after_the_last_day(world):
    end = np.datetime64(SMALL.last_day + timedelta(days=1))
    for name in (*NEW, "oc_product_stock_log"):
        assert world.shop[name]["date_added"].to_numpy().max() < end, name
    assert max(row["reviewed_at"] for row in outlet(world, "reviews"))[:10] <= date.isoformat(SMALL.last_day)
