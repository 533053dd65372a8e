"""The planted mechanisms: a model can only find what the simulation really does."""

from datetime import date

import numpy as np
import pytest

from include.demo.catalogue import SHOP_CATEGORIES, build_catalogue
from include.demo.simulate import DAY, day_factors, draw_customers, simulate
from include.demo.sizes import ShopSizes

FIRST, N_DAYS = date(2024, 6, 1), 500
SIZES = ShopSizes(customers=2500, skus=80, vendors=10, orders_per_year=14.0)


@pytest.fixture(scope="module")
def sim():
    rng = np.random.default_rng(11)
    catalogue = build_catalogue(SIZES, SHOP_CATEGORIES, FIRST, N_DAYS, rng)
    customers = draw_customers(SIZES, np.arange(SIZES.customers), 0.4, FIRST, N_DAYS, rng)
    return simulate(customers, catalogue, rng.integers(0, 12, SIZES.customers), FIRST, N_DAYS, rng)


def test_a_promotion_lifts_demand_by_what_the_elasticity_says(sim):
    catalogue, promo = sim.catalogue, sim.catalogue.promotions
    starts, skus = promo["first_day"], promo["sku"]
    before = starts - 1
    is_weekend = ((FIRST.weekday() + np.arange(N_DAYS)) % 7) >= 5
    fair = (starts > 0) & (catalogue.launch_day[skus] < 0) & (starts // 7 == before // 7)
    fair &= is_weekend[starts] == is_weekend[before]
    fair &= catalogue.list_cents[starts, skus] == catalogue.list_cents[before, skus]
    fair &= catalogue.paid_cents[before, skus] == catalogue.list_cents[before, skus]
    assert fair.sum() > 20
    lift = catalogue.weight[starts, skus][fair] / catalogue.weight[before, skus][fair]
    np.testing.assert_allclose(lift, promo["lift"][fair], rtol=0.03)


def test_units_sold_follow_the_weights(sim):
    day = (sim.orders["ordered"][sim.lines["order"]] - sim.start) // DAY
    on_offer = np.zeros_like(sim.catalogue.paid_cents, bool)
    promo = sim.catalogue.promotions
    for sku, first, last in zip(promo["sku"], promo["first_day"], promo["last_day"], strict=True):
        on_offer[first : last + 1, sku] = True
    sold = np.zeros(on_offer.shape)
    np.add.at(sold, (day, sim.lines["sku"]), sim.lines["quantity"])
    promoted, usual = sold[on_offer].mean(), sold[~on_offer & (sim.catalogue.weight > 0)].mean()
    assert promoted / usual > 1.3


def test_nothing_is_sold_before_its_launch(sim):
    day = (sim.orders["ordered"][sim.lines["order"]] - sim.start) // DAY
    assert (day >= sim.catalogue.launch_day[sim.lines["sku"]]).all()


def test_late_vendors_deliver_late_more_often(sim):
    vendor = sim.catalogue.vendor[sim.lines["sku"]]
    order = sim.lines["order"]
    came = sim.orders["handed_over"][order] < 2**60
    is_late = (sim.orders["delivered"] > sim.orders["estimated"])[order]
    slow = sim.catalogue.vendor_is_late[vendor]
    assert is_late[came & slow].mean() > 2 * is_late[came & ~slow].mean()


def test_a_late_delivery_raises_the_hazard_of_leaving(sim):
    orders, hazards = sim.orders, sim.hazards
    day = np.unique(hazards["day"])[-3]
    arrived = (orders["delivered"] - sim.start) // DAY
    is_news = (orders["delivered"] > orders["estimated"]) & (arrived < day) & (arrived >= day - 20)
    told = np.zeros(SIZES.customers, bool)
    told[orders["customer"][is_news]] = True
    now = hazards["day"] == day
    ratio = hazards["hazard"][now] / sim.customers.base_hazard[hazards["customer"][now]]
    hit = told[hazards["customer"][now]]
    assert hit.sum() > 30
    assert np.median(ratio[hit]) > 1.8 * np.median(ratio[~hit])


def test_customers_visit_less_before_they_leave_and_never_order_after(sim):
    faded, gone = sim.customers.faded_on, sim.customers.gone_on
    visited = (sim.visits["at"] - sim.start) // DAY
    left = np.flatnonzero(
        (faded > 60) & (gone > faded + 5) & (sim.customers.signed_up < sim.start + (faded - 60) * DAY)
    )
    assert left.size > 100
    is_left = np.isin(sim.visits["customer"], left)
    who, when = sim.visits["customer"][is_left], visited[is_left]
    fading = ((when >= faded[who]) & (when < gone[who])).sum() / (gone - faded)[left].sum()
    before = ((when >= faded[who] - 40) & (when < faded[who])).sum() / (40 * left.size)
    assert fading < 0.5 * before
    ordered = (sim.orders["ordered"] - sim.start) // DAY
    end = np.where(gone >= 0, gone, N_DAYS)
    assert (ordered < end[sim.orders["customer"]]).all()


def test_week_and_year_are_seasonal():
    factor = day_factors(date(2024, 1, 1), 366)
    weekday = np.arange(366) % 7
    assert factor[weekday >= 5].mean() > factor[(weekday >= 1) & (weekday <= 3)].mean() * 1.1
    assert factor[335:353].mean() > factor[152:244].mean() * 1.2
    assert factor.argmax() == (date(2024, 11, 29) - date(2024, 1, 1)).days
