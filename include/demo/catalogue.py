"""What is for sale: categories, vendors, SKUs, their price of every day and how much people want them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from include.demo.sizes import ShopSizes


@dataclass(frozen=True)
class Category:
    """A category's planted truth. ``elasticity`` is d log(units) / d log(own price)."""

    name: str
    elasticity: float
    peak_day: int
    """Day of the year on which demand is highest."""
    amplitude: float
    """Half the log distance between the yearly high and low."""
    weekend: float
    """Log demand on Saturday and Sunday against the other days."""
    price: float
    """Median list price in USD."""
    quantity: float
    """Mean units a line."""
    return_rate: float
    nouns: tuple[str, ...]


SHOP_CATEGORIES = (
    Category("Electronics", -2.2, 335, 0.30, 0.05, 90.0, 1.05, 0.07, ("Headphones", "Speaker", "Keyboard", "Webcam")),
    Category("Home and Kitchen", -1.5, 320, 0.18, 0.20, 34.0, 1.25, 0.04, ("Pan", "Lamp", "Knife Set", "Kettle")),
    Category("Fashion", -1.8, 110, 0.22, 0.25, 42.0, 1.30, 0.13, ("Jacket", "Scarf", "Sneaker", "Belt")),
    Category("Beauty", -1.2, 345, 0.20, 0.05, 18.0, 1.50, 0.03, ("Serum", "Soap", "Perfume", "Cream")),
    Category("Toys", -1.9, 345, 0.70, 0.30, 24.0, 1.30, 0.03, ("Puzzle", "Blocks", "Robot", "Board Game")),
    Category("Garden", -1.4, 140, 0.75, 0.35, 29.0, 1.60, 0.03, ("Planter", "Hose", "Shears", "Seeds")),
    Category("Sports", -1.6, 165, 0.35, 0.15, 48.0, 1.15, 0.06, ("Mat", "Bottle", "Racket", "Dumbbell")),
    Category("Groceries", -0.8, 350, 0.08, -0.10, 9.0, 2.20, 0.01, ("Coffee", "Tea", "Olive Oil", "Granola")),
)
OUTLET_CATEGORIES = (
    Category("Fashion", -2.0, 120, 0.25, 0.20, 25.0, 1.35, 0.10, ("Shirt", "Jeans", "Boot", "Hat")),
    Category("Home and Kitchen", -1.6, 325, 0.18, 0.15, 22.0, 1.35, 0.04, ("Bowl", "Towel", "Mug", "Rug")),
    Category("Toys", -2.1, 345, 0.65, 0.25, 15.0, 1.40, 0.03, ("Kite", "Doll", "Car", "Cards")),
    Category("Books", -1.1, 350, 0.25, 0.10, 12.0, 1.30, 0.02, ("Novel", "Atlas", "Cookbook", "Guide")),
)
ADJECTIVES = (
    "Classic", "Nordic", "Urban", "Compact", "Deluxe", "Eco", "Vintage", "Smart", "Black & White",
    '10" Travel', "Family", "Artisan", "Pocket", "Heavy-Duty", "Light", "Studio",
)  # fmt: skip
ZONES = (
    "California", "Texas", "Florida", "New York", "Illinois", "Ohio",
    "Georgia", "Washington", "Colorado", "Arizona", "Oregon", "Maine",
)  # fmt: skip
ZONE_WEIGHTS = np.array([18, 14, 11, 11, 8, 7, 7, 6, 6, 5, 4, 3]) / 100.0
N_SEGMENTS = 4
PROMOTION_LIFT = 1.25
"""What being on the offers page adds to demand on top of the lower price."""


@dataclass(frozen=True)
class Catalogue:
    """A shop's assortment. Arrays of vendors have shape (n_vendors,), of SKUs (n_skus,), by day (n_days, n_skus).

    Days are offsets from the first day; money is in cents.
    """

    categories: tuple[Category, ...]
    vendor_name: list[str]
    vendor_zone: np.ndarray
    vendor_late_rate: np.ndarray
    vendor_is_late: np.ndarray
    vendor_handling: np.ndarray
    """Mean days from approval to hand-over when nothing goes wrong."""
    name: list[str]
    category: np.ndarray
    vendor: np.ndarray
    launch_day: np.ndarray
    """-1: sold since before the first day."""
    list_cents: np.ndarray
    paid_cents: np.ndarray
    weight: np.ndarray
    """Relative demand at the price of the day, promotions and life cycle included; 0 before the launch."""
    price_effect: np.ndarray
    """The part of ``weight`` that price and promotion make: 1 at the first price without a promotion."""
    affinity: np.ndarray
    """(N_SEGMENTS, n_categories): how much each customer segment likes each category."""
    price_changes: dict[str, np.ndarray]
    """sku, day, old_cents, new_cents; shape (n_changes,) each."""
    promotions: dict[str, np.ndarray]
    """sku, first_day, last_day (both included), cents, discount, lift; shape (n_promotions,) each."""


def build_catalogue(
    sizes: ShopSizes, categories: tuple[Category, ...], first_day: date, n_days: int, rng: np.random.Generator
) -> Catalogue:
    """Draw an assortment and its prices, promotions and daily demand weights."""
    n, n_vendors = sizes.skus, sizes.vendors
    category = np.sort(np.arange(n) % len(categories))
    rng.shuffle(category)
    elasticity = np.array([c.elasticity for c in categories])[category]
    # Every vendor has at least one SKU; the rest go to vendors by size.
    share = rng.dirichlet(np.full(n_vendors, 2.0))
    vendor = np.concatenate([np.arange(n_vendors), rng.choice(n_vendors, size=n - n_vendors, p=share)])
    rng.shuffle(vendor)
    is_late = np.zeros(n_vendors, dtype=bool)
    is_late[rng.choice(n_vendors, size=max(1, round(0.2 * n_vendors)), replace=False)] = True
    late_rate = np.where(is_late, rng.uniform(0.22, 0.42, n_vendors), rng.uniform(0.005, 0.04, n_vendors))

    median = np.array([c.price for c in categories])[category]
    base = _charm(100 * median * np.exp(rng.normal(0, 0.45, n)))
    launch = np.where(rng.random(n) < 0.70, -1, rng.integers(5, max(6, n_days - 45), n))

    changes = _price_changes(base, n_days, rng)
    list_cents = np.repeat(base[None, :], n_days, axis=0)
    for sku, day, new in zip(changes["sku"], changes["day"], changes["new_cents"], strict=True):
        list_cents[day:, sku] = new
    promotions = _promotions(list_cents, launch, elasticity, first_day, rng)
    paid = list_cents.copy()
    on_offer = np.zeros((n_days, n), dtype=bool)
    for sku, start, last, cents in zip(
        *(promotions[k] for k in ("sku", "first_day", "last_day", "cents")), strict=True
    ):
        paid[start : last + 1, sku] = cents
        on_offer[start : last + 1, sku] = True

    log_weight = (
        rng.normal(0, 0.85, n)[None, :] + _season(categories, first_day, n_days)[:, category] + _drift(n_days, n, rng)
    )
    price_effect = (paid / base[None, :]) ** elasticity[None, :] * np.where(on_offer, PROMOTION_LIFT, 1.0)
    weight = np.exp(log_weight) * price_effect * _life_cycle(launch, n_days, rng)
    affinity = 0.35 + rng.dirichlet(np.full(len(categories), 0.7), N_SEGMENTS) * len(categories) * 0.65
    return Catalogue(
        categories=categories,
        vendor_name=[f"{_SURNAMES[i % len(_SURNAMES)]} {_TRADES[i % len(_TRADES)]}" for i in range(n_vendors)],
        vendor_zone=rng.choice(len(ZONES), n_vendors, p=ZONE_WEIGHTS),
        vendor_late_rate=late_rate,
        vendor_is_late=is_late,
        vendor_handling=rng.uniform(0.5, 2.2, n_vendors),
        name=[
            f"{ADJECTIVES[a]} {categories[c].nouns[b]} {i + 1}"
            for i, (c, a, b) in enumerate(
                zip(category, rng.integers(0, len(ADJECTIVES), n), rng.integers(0, 4, n), strict=True)
            )
        ],
        category=category,
        vendor=vendor,
        launch_day=launch,
        list_cents=list_cents,
        paid_cents=paid,
        weight=weight,
        price_effect=price_effect,
        affinity=affinity,
        price_changes=changes,
        promotions=promotions,
    )


def day_of_year(first_day: date, n_days: int) -> np.ndarray:
    """1..366 for each day of the range."""
    days = np.datetime64(first_day) + np.arange(n_days)
    return (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(int) + 1


def day_of_week(first_day: date, n_days: int) -> np.ndarray:
    """0 (Monday) .. 6 for each day of the range."""
    return (first_day.weekday() + np.arange(n_days)) % 7


def _season(categories: tuple[Category, ...], first_day: date, n_days: int) -> np.ndarray:
    """Log demand by day and category, shape (n_days, n_categories)."""
    phase = day_of_year(first_day, n_days)[:, None] - np.array([c.peak_day for c in categories])[None, :]
    yearly = np.array([c.amplitude for c in categories])[None, :] * np.cos(2 * np.pi * phase / 365.25)
    is_weekend = (day_of_week(first_day, n_days) >= 5)[:, None]
    return yearly + np.where(is_weekend, np.array([c.weekend for c in categories])[None, :], 0.0)


def _drift(n_days: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A mean-reverting weekly random walk and a slope a SKU, in log demand: learnable, but not from a calendar."""
    weeks = n_days // 7 + 1
    level = np.empty((weeks, n))
    level[0] = rng.normal(0, 0.25, n)
    shocks = rng.normal(0, 0.14, (weeks, n))
    for week in range(1, weeks):
        level[week] = 0.85 * level[week - 1] + shocks[week]
    slope = rng.normal(0, 0.20, n) / 365.0
    return level[np.arange(n_days) // 7] + slope[None, :] * np.arange(n_days)[:, None]


def _life_cycle(launch: np.ndarray, n_days: int, rng: np.random.Generator) -> np.ndarray:
    """0 before the launch, a ramp of three weeks after it, a novelty that fades for some; (n_days, n_skus)."""
    age = np.arange(n_days)[:, None] - launch[None, :]
    ramp = np.where(launch[None, :] < 0, 1.0, 1.0 - np.exp(-(age + 1) / 18.0))
    novelty = 1.0 + rng.choice([0.0, 0.8], launch.size)[None, :] * np.exp(-np.maximum(age, 0) / 60.0) * (launch >= 0)
    return np.where(age >= 0, ramp * novelty, 0.0)


def _charm(cents: np.ndarray) -> np.ndarray:
    """Prices that end in 49 or 99 cents."""
    return np.maximum(np.round(cents / 50.0).astype(np.int64) * 50 - 1, 149)


def _price_changes(base: np.ndarray, n_days: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows = []
    for sku in range(base.size):
        day, cents = int(rng.integers(20, 220)), int(base[sku])
        while day < n_days:
            factor = 1 + rng.choice([-1, 1], p=[0.4, 0.6]) * rng.uniform(0.05, 0.18)
            new = int(np.clip(_charm(np.array([cents * factor]))[0], 0.7 * base[sku], 1.5 * base[sku]))
            if new != cents:
                rows.append((sku, day, cents, new))
            cents = new
            day += int(rng.integers(100, 240))
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return dict(zip(("sku", "day", "old_cents", "new_cents"), table.T, strict=True))


def _promotions(
    list_cents: np.ndarray, launch: np.ndarray, elasticity: np.ndarray, first_day: date, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """About three promotions a SKU and year, never two at once, many of them in the week of Black Friday."""
    n_days, n = list_cents.shape
    fridays = [day for day in range(n_days) if _is_black_friday(first_day, day)]
    rows = []
    for sku in range(n):
        day = int(max(launch[sku], 0) + rng.integers(14, 120))
        spans = []
        while day < n_days - 3:
            length = int(rng.integers(5, 15))
            spans.append((day, min(day + length - 1, n_days - 1), rng.uniform(0.10, 0.35)))
            day += length + int(rng.integers(60, 160))
        for friday in fridays:
            start, last = friday - 3, friday + 3
            if friday - launch[sku] > 30 and last < n_days and start >= 0 and rng.random() < 0.45:
                spans = [s for s in spans if s[1] < start or s[0] > last]
                spans.append((start, last, rng.uniform(0.15, 0.40)))
        for start, last, discount in sorted(spans):
            listed = int(list_cents[start, sku])
            cents = round(listed * (1 - discount))
            lift = PROMOTION_LIFT * (cents / listed) ** elasticity[sku]
            rows.append((sku, start, last, cents, 1 - cents / listed, lift))
    table = np.array(rows, dtype=float).reshape(-1, 6)
    names = ("sku", "first_day", "last_day", "cents", "discount", "lift")
    columns = dict(zip(names, table.T, strict=True))
    return {k: v.astype(np.int64) if k not in ("discount", "lift") else v for k, v in columns.items()}


def _is_black_friday(first_day: date, offset: int) -> bool:
    day = date.fromordinal(first_day.toordinal() + offset)
    return day.month == 11 and day.weekday() == 4 and 23 <= day.day <= 29


_SURNAMES = (
    "Abbott", "Birch", "Calder", "Dunmore", "Ellery", "Fenwick", "Garrison", "Hollis", "Ingram", "Jarvis", "Kestrel",
    "Larkin", "Mercer", "Norwood", "Orchard", "Pemberton", "Quill", "Radcliffe", "Sterling", "Thatcher", "Underhill",
    "Vance", "Whitlock",
)  # fmt: skip
_TRADES = ("Trading", "Goods", "Supply", "Works", "& Sons", "Imports", "Makers")
