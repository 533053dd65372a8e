"""How big a demo marketplace is: the one place with its counts and rates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from include.dates import parse_day
from include.settings import settings


@dataclass(frozen=True)
class ShopSizes:
    """One shop. Rates are per customer who is still with the shop."""

    customers: int
    skus: int
    vendors: int
    orders_per_year: float
    """Mean orders of an active customer in a year; a gamma spreads customers around it."""


@dataclass(frozen=True)
class Sizes:
    """A whole marketplace: the shop with the database, the outlet with the CSV drops, the click stream."""

    shop: ShopSizes = ShopSizes(customers=6000, skus=420, vendors=42, orders_per_year=10.5)
    outlet: ShopSizes = ShopSizes(customers=1600, skus=120, vendors=12, orders_per_year=11.5)
    last_days: int | None = None
    """Only the last n days up to and including the first night; None takes the whole range of the settings."""
    existing_share: float = 0.25
    """Customers who had registered before the first day."""
    shared_share: float = 0.40
    """Outlet customers who are also customers of the shop, by e-mail."""
    fraud_bursts: int = 14
    tracked_share: float = 0.72
    """Orders whose clicks the stream has seen."""
    anonymous_per_day: float = 18.0
    """Sessions a day of visitors who never log in."""
    broken_row_chance: float = 0.22
    """Chance that a CSV file with enough rows carries one broken row."""
    rows_per_broken: int = 50
    """A file with fewer rows carries no broken row, so that one never weighs more than 1/n of its day."""

    @property
    def first_day(self) -> date:
        if self.last_days is None:
            return parse_day(settings().demo_start)
        return self.last_day - timedelta(days=self.last_days - 1)

    @property
    def last_day(self) -> date:
        return parse_day(settings().demo_end if self.last_days is None else settings().demo_first_night)

    @property
    def n_days(self) -> int:
        return (self.last_day - self.first_day).days + 1


FULL = Sizes()
"""What ``make run`` fills: two years and a month, about 77,000 orders, 440,000 clicks."""

SMALL = Sizes(
    shop=ShopSizes(customers=300, skus=40, vendors=6, orders_per_year=24.0),
    outlet=ShopSizes(customers=160, skus=16, vendors=3, orders_per_year=24.0),
    last_days=92,
    existing_share=0.75,
    fraud_bursts=2,
    anonymous_per_day=4.0,
    rows_per_broken=24,
)
"""For tests: three months that end with the first night."""
