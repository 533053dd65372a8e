"""What follows a purchase, and what a shop counts: returns paid back, reviews, coupons, stock, and products' GTINs.

Each part has a stream of randomness of its own, so that none of it changes who bought what and when.
"""

from __future__ import annotations

import numpy as np

from include.demo.simulate import DAY, NEVER, Simulation

REVIEWED_SHARE = 0.09
"""Of the delivered lines. Who was served late, or sent the goods back, is less happy and says so at more length."""
RATINGS = np.array([0.04, 0.05, 0.11, 0.30, 0.50])
UNHAPPY_RATINGS = np.array([0.30, 0.25, 0.20, 0.15, 0.10])
PAID_BACK_SHARE = 0.92
GIFT_SHARE = 0.02
FULL_STOCK, REORDERED_AFTER = 1000, 700
"""Units in stock at first, and how many are sold until they are there again."""
COUNT_EVERY_DAYS = 7
NO_GTIN_SHARE = 0.08
SHARED_GTIN_SHARE = 0.6
"""Of the outlet's products of a category that the shop has too: the same product under another name."""


def returned_lines(sim: Simulation) -> np.ndarray:
    """Positions of the lines that came back by the end of the last day, in the order in which they did."""
    back = np.flatnonzero(sim.lines["returned"] < sim.end)
    return back[np.argsort(sim.lines["returned"][back], kind="stable")]


def paid_back(sim: Simulation, rng: np.random.Generator) -> np.ndarray:
    """When each of ``returned_lines`` was paid back; ``NEVER`` when it was not by the end of the last day."""
    back = returned_lines(sim)
    at = sim.lines["returned"][back] + (rng.uniform(1, 9, back.size) * DAY).astype(np.int64)
    return np.where((rng.random(back.size) < PAID_BACK_SHARE) & (at < sim.end), at, NEVER)


def reviews(sim: Simulation, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """line, at, rating (1..5), n_characters, is_approved of every review, sorted by time."""
    orders, lines = sim.orders, sim.lines
    order = lines["order"]
    chosen = np.flatnonzero((orders["delivered"][order] < sim.end) & (rng.random(order.size) < REVIEWED_SHARE))
    of = order[chosen]
    at = orders["delivered"][of] + (rng.uniform(0.5, 25, chosen.size) * DAY).astype(np.int64)
    is_unhappy = (orders["delivered"] > orders["estimated"])[of] | (lines["returned"][chosen] < at)
    draw = rng.random(chosen.size)
    happy, unhappy = (np.searchsorted(np.cumsum(p), draw * p.sum()) + 1 for p in (RATINGS, UNHAPPY_RATINGS))
    length = np.minimum(rng.lognormal(np.where(is_unhappy, 5.0, 4.2), 0.7).astype(np.int64) + 4, 1600)
    found = {
        "line": chosen,
        "at": at,
        "rating": np.where(is_unhappy, unhappy, happy),
        "n_characters": length,
        "is_approved": rng.random(chosen.size) < 0.96,
    }
    rank = np.argsort(at, kind="stable")
    rank = rank[at[rank] < sim.end]
    return {name: values[rank] for name, values in found.items()}


def gifts(sim: Simulation, rng: np.random.Generator) -> np.ndarray:
    """Positions of the orders that used a coupon for a gift, which takes nothing off."""
    return np.flatnonzero((rng.random(sim.orders["ordered"].size) < GIFT_SHARE) & ~sim.orders["is_abandoned"])


def stock_counts(sim: Simulation) -> dict[str, np.ndarray]:
    """sku, at, quantity, sorted by time: every SKU once a week since its launch, early in the morning.

    What was sold by then is gone; when it is ``REORDERED_AFTER`` units, they are there again. No chance is in it.
    """
    n_days, n = sim.catalogue.list_cents.shape
    ordered = (sim.orders["ordered"][sim.lines["order"]] - sim.start) // DAY
    is_sold = ~sim.orders["is_abandoned"][sim.lines["order"]]
    sold = np.zeros((n_days + 1, n), np.int64)
    np.add.at(sold, (ordered[is_sold] + 1, sim.lines["sku"][is_sold]), sim.lines["quantity"][is_sold])
    sold = np.cumsum(sold, axis=0)
    day, sku = np.nonzero(
        ((np.arange(n_days)[:, None] - np.arange(n)[None, :]) % COUNT_EVERY_DAYS == 0)
        & (np.arange(n_days)[:, None] > sim.catalogue.launch_day[None, :])
    )
    return {
        "sku": sku,
        "at": sim.start + day * DAY + 4 * 3600 + 11 * sku,
        "quantity": FULL_STOCK - sold[day, sku] % REORDERED_AFTER,
    }


def gtins(sims: dict[str, Simulation], rng: np.random.Generator) -> dict[str, list[str]]:
    """The GTIN (13 digits, "" where a product has none) of every SKU of both shops, by marketplace.

    In the range 29, which is nobody's. A part of the outlet's products are products of the shop.
    """
    sizes = {name: len(sim.catalogue.name) for name, sim in sims.items()}
    drawn = iter(rng.permutation(10 * sum(sizes.values())).tolist())
    found = {
        name: ["" if is_without else _gtin(next(drawn)) for is_without in rng.random(n) < NO_GTIN_SHARE]
        for name, n in sizes.items()
    }
    shop, outlet = sims["demo_shop"].catalogue, sims["demo_outlet"].catalogue
    category = [c.name for c in shop.categories]
    free = {
        number: [sku for sku in np.flatnonzero(shop.category == number).tolist() if found["demo_shop"][sku]]
        for number in range(len(category))
    }
    for sku in np.flatnonzero(rng.random(len(outlet.name)) < SHARED_GTIN_SHARE).tolist():
        name = outlet.categories[outlet.category[sku]].name
        there = free[category.index(name)] if name in category else []
        if there:
            found["demo_outlet"][sku] = found["demo_shop"][there.pop(int(rng.integers(len(there))))]
    return found


def _gtin(number: int) -> str:
    digits = f"29{number:010d}"
    weighted = sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(digits))
    return digits + str(-weighted % 10)
