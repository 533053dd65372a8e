"""What happened: customers who come, order, wait for parcels, lose interest and leave, day by day.

A customer orders at a rate of his own, less right after an order (people buy when the last purchase is
used up). He leaves by a daily hazard that rises with late deliveries and with a pause that is long for
him; before he leaves he fades for some weeks: fewer visits, fewer orders. All of it can be observed, so
a model can learn it; the hazards themselves are kept as truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from include.demo.catalogue import N_SEGMENTS, Catalogue, day_of_week, day_of_year
from include.demo.sizes import ShopSizes

NEVER = np.iinfo(np.int64).max
"""An instant that never comes."""
DAY = 86_400
AWAY, ACTIVE, FADING, GONE = 0, 1, 2, 3
CREATED, APPROVED, SHIPPED, DELIVERED, CANCELED, RETURNED = range(6)
_HOURS = np.array([2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 11, 11, 12, 11, 10, 10, 10, 11, 13, 15, 16, 14, 9, 5], dtype=float)
_WEEK = np.array([1.02, 0.97, 0.93, 0.95, 1.00, 1.10, 1.13])
LINES_PER_ORDER = 1.75
LATE_HALF_LIFE_DAYS = 45.0
LATE_EFFECT, PAUSE_EFFECT = 1.0, 0.6
"""Log hazard of leaving for each recent late delivery, and for each usual gap that a pause lasts beyond 1.5."""


@dataclass(frozen=True)
class Customers:
    """A shop's customers in the order in which they registered; shape (n_customers,)."""

    person: np.ndarray
    """Index into the pool of people."""
    signed_up: np.ndarray
    """Epoch seconds."""
    segment: np.ndarray
    orders_per_day: np.ndarray
    visits_per_day: np.ndarray
    base_hazard: np.ndarray
    is_one_timer: np.ndarray
    faded_on: np.ndarray
    """Day offset on which he began to leave; -1 when he had not by the last day."""
    gone_on: np.ndarray
    """First day offset without any chance of an order; -1 when he is still there."""


@dataclass(frozen=True)
class Simulation:
    """Everything one shop lived through. Orders are sorted by time and lines by order.

    Instants are epoch seconds (``NEVER`` when it did not happen), possibly after the last day: what is
    written to the source systems stops there. Money is in cents.
    """

    first_day: date
    n_days: int
    catalogue: Catalogue
    customers: Customers
    orders: dict[str, np.ndarray]
    """customer, ordered, approved, handed_over, delivered, canceled, refunded, estimated (all (n_orders,)),
    is_abandoned, burst (fraud burst, else -1)."""
    lines: dict[str, np.ndarray]
    """order, sku, quantity, cents, freight_cents, returned (instant), shape (n_lines,)."""
    visits: dict[str, np.ndarray]
    """Visits without an order: customer, at."""
    hazards: dict[str, np.ndarray]
    """customer, day, hazard (a day) of active customers on each first of a month."""

    @property
    def start(self) -> int:
        return epoch(self.first_day)

    @property
    def end(self) -> int:
        """The first second after the last day."""
        return self.start + self.n_days * DAY


def epoch(day: date) -> int:
    """Epoch seconds of 00:00 UTC."""
    return (day - date(1970, 1, 1)).days * DAY


def day_factors(first_day: date, n_days: int) -> np.ndarray:
    """How busy a shop is on each day, by week, season, trend and the days around Christmas; shape (n_days,)."""
    doy, dow = day_of_year(first_day, n_days), day_of_week(first_day, n_days)
    days = np.datetime64(first_day) + np.arange(n_days)
    month = days.astype("datetime64[M]").astype(int) % 12 + 1
    of_month = (days - days.astype("datetime64[M]").astype("datetime64[D]")).astype(int) + 1
    yearly = np.exp(0.13 * np.cos(2 * np.pi * (doy - 338) / 365.25))
    # The Friday of the week that holds 23..29 November, and the days around it.
    to_friday = np.abs((dow - 4 + 3) % 7 - 3)
    friday_week = (month == 11) & (of_month - (dow - 4) >= 23) & (of_month - (dow - 4) <= 29)
    special = np.where(friday_week, 1.15 + 0.25 * (to_friday == 0), 1.0)
    special = np.where((month == 12) & (of_month <= 18), 1.22, special)
    special = np.where((month == 12) & (of_month >= 24) & (of_month <= 26), 0.55, special)
    special = np.where((month == 1) & (of_month == 1), 0.60, special)
    trend = np.exp(0.06 * np.arange(n_days) / 365.0)
    return _WEEK[dow] * yearly * special * trend


def draw_customers(
    sizes: ShopSizes,
    people: np.ndarray,
    existing_share: float,
    first_day: date,
    n_days: int,
    rng: np.random.Generator,
) -> Customers:
    """``sizes.customers`` of ``people`` with their habits; some were there before the first day."""
    n = sizes.customers
    start = epoch(first_day)
    arrival = day_factors(first_day, n_days) * (1 + 0.4 * np.arange(n_days) / 365.0)
    day = np.where(
        rng.random(n) < existing_share,
        -rng.integers(1, 420, n),
        rng.choice(n_days, n, p=arrival / arrival.sum()),
    )
    signed_up = np.sort(start + day * DAY + _second_of_day(n, rng))
    rate = rng.gamma(1.5, sizes.orders_per_year / 365.0 / 1.5, n) + 0.15 * sizes.orders_per_year / 365.0
    return Customers(
        person=rng.permutation(people)[:n],
        signed_up=signed_up,
        segment=rng.integers(0, N_SEGMENTS, n),
        orders_per_day=rate,
        visits_per_day=(0.012 + 0.35 * rate) * rng.gamma(4.0, 0.25, n),
        base_hazard=np.exp(rng.normal(np.log(1 / 1000.0), 0.7, n)),
        is_one_timer=(rng.random(n) < 0.10) & (signed_up >= start),
        faded_on=np.full(n, -1),
        gone_on=np.full(n, -1),
    )


def simulate(
    customers: Customers, catalogue: Catalogue, zone: np.ndarray, first_day: date, n_days: int, rng: np.random.Generator
) -> Simulation:
    """Live through every day of the range. ``zone`` is each customer's region, shape (n_customers,)."""
    n = customers.person.size
    start = epoch(first_day)
    busy = day_factors(first_day, n_days)
    signup_day = (customers.signed_up - start) // DAY
    state = np.where(signup_day < 0, ACTIVE, AWAY)
    rate = customers.orders_per_day
    last_order = np.where(signup_day < 0, -rng.exponential(0.6 / rate), -1e6)
    fade_until = np.full(n, n_days + 1)
    late = np.zeros(n)
    late_news: list[list[np.ndarray]] = [[] for _ in range(n_days)]
    forget = 0.5 ** (1 / LATE_HALF_LIFE_DAYS)
    by_signup = np.argsort(signup_day, kind="stable")
    bounds = np.searchsorted(signup_day[by_signup], np.arange(n_days + 1))
    transit = _transit_days()
    orders: list[dict[str, np.ndarray]] = []
    lines: list[dict[str, np.ndarray]] = []
    visits, hazards = [], []
    n_orders = 0
    for day in range(n_days):
        new = by_signup[bounds[day] : bounds[day + 1]]
        state[new] = ACTIVE
        late *= forget
        for told in late_news[day]:
            np.add.at(late, told, 1.0)
        pause = np.clip((day - last_order) * rate, 0, 8)
        hazard = customers.base_hazard * np.exp(
            LATE_EFFECT * np.minimum(late, 4.0) + PAUSE_EFFECT * np.clip(pause - 1.5, 0, 3)
        )
        active = state == ACTIVE
        if _is_month_first(first_day, day):
            who = np.flatnonzero(active)
            hazards.append((who, np.full(who.size, day), hazard[who]))
        leaving = active & (rng.random(n) < hazard)
        leaving[new] = False
        state[leaving] = FADING
        customers.faded_on[leaving] = day
        fade_until[leaving] = day + rng.integers(12, 45, int(leaving.sum()))
        gone = (state == FADING) & (day >= fade_until)
        state[gone] = GONE
        customers.gone_on[gone] = day

        mood = np.array([0.0, 1.0, 0.30, 0.0])[state]
        wish = np.minimum(rate * busy[day] * mood * 1.45 * (1 - np.exp(-2.2 * pause)), 0.6)
        wish[new] = 0.88
        draw = rng.random(n)
        buys = np.flatnonzero(draw < wish * 1.05)
        is_abandoned = draw[buys] >= wish[buys]
        bought = buys[~is_abandoned]
        last_order[bought] = day
        done = bought[customers.is_one_timer[bought]]
        state[done] = GONE
        customers.faded_on[done] = day
        customers.gone_on[done] = day + 1
        looks = np.flatnonzero(rng.random(n) < customers.visits_per_day * mood * busy[day])
        visits.append((looks, start + day * DAY + _second_of_day(looks.size, rng)))
        if buys.size == 0:
            continue

        ordered = start + day * DAY + _second_of_day(buys.size, rng)
        # A new customer cannot order before he registers.
        ordered = np.maximum(ordered, np.minimum(customers.signed_up[buys] + 60, start + (day + 1) * DAY - 1))
        basket = _baskets(customers.segment[buys], catalogue, day, rng)
        order = _fulfil(ordered, is_abandoned, basket, zone[buys], transit, catalogue, rng)
        told_on = np.where(order["delivered"] > order["estimated"], (order["delivered"] - start) // DAY, n_days)
        for when in np.unique(told_on[told_on < n_days]):
            late_news[when].append(buys[told_on == when])
        orders.append({"customer": buys, "burst": np.full(buys.size, -1), **order})
        basket["order"] = basket["order"] + n_orders
        lines.append(basket)
        n_orders += buys.size

    return Simulation(
        first_day=first_day,
        n_days=n_days,
        catalogue=catalogue,
        customers=customers,
        orders=_stack(orders),
        lines=_stack(lines),
        visits=dict(zip(("customer", "at"), map(np.concatenate, zip(*visits, strict=True)), strict=True)),
        hazards=dict(zip(("customer", "day", "hazard"), map(np.concatenate, zip(*hazards, strict=True)), strict=True))
        if hazards
        else {"customer": np.array([], int), "day": np.array([], int), "hazard": np.array([])},
    )


def add_fraud(simulation: Simulation, n_bursts: int, spare_people: np.ndarray, rng: np.random.Generator) -> Simulation:
    """Bursts of orders for dear goods by accounts opened within the hour, most of them cancelled days later.

    Uses up to ``spare_people`` as the accounts' owners.
    """
    catalogue, old = simulation.catalogue, simulation.customers
    parts: list[tuple[np.ndarray, ...]] = []
    left = spare_people
    for number in range(n_bursts):
        size = min(int(rng.integers(14, 34)), left.size)
        day = int(rng.integers(min(20, simulation.n_days // 3), simulation.n_days - 1))
        known = np.flatnonzero(catalogue.launch_day <= day)
        dear = known[np.argsort(catalogue.list_cents[day, known])[-max(4, known.size // 20) :]]
        begin = simulation.start + day * DAY + int(rng.integers(0, 20 * 3600))
        ordered = begin + rng.integers(0, 3 * 3600, size)
        parts.append((left[:size], ordered, np.full(size, number), rng.choice(dear, size)))
        left = left[size:]
    if not parts:
        return simulation
    person, at, burst, sku = (np.concatenate(column) for column in zip(*parts, strict=True))
    n = person.size
    on = (at - simulation.start) // DAY
    fraud = Customers(
        person=person,
        signed_up=at - rng.integers(120, 3000, n),
        segment=np.zeros(n, int),
        orders_per_day=np.zeros(n),
        visits_per_day=np.zeros(n),
        base_hazard=np.zeros(n),
        is_one_timer=np.ones(n, bool),
        faded_on=on,
        gone_on=on + 1,
    )
    approved = at + rng.integers(900, 7200, n)
    canceled = np.where(rng.random(n) < 0.8, at + (rng.uniform(1, 7, n) * DAY).astype(int), NEVER)
    handed = np.where(canceled == NEVER, approved + DAY, NEVER)
    order = {
        "customer": old.person.size + np.arange(n),
        "burst": burst,
        "ordered": at,
        "is_abandoned": np.zeros(n, bool),
        "approved": approved,
        "handed_over": handed,
        "delivered": np.where(handed == NEVER, NEVER, approved + 4 * DAY),
        "canceled": canceled,
        "refunded": np.full(n, NEVER),
        "estimated": (at // DAY + 8) * DAY - 1,
    }
    line = {
        "order": simulation.orders["customer"].size + np.arange(n),
        "sku": sku,
        "quantity": rng.integers(1, 4, n),
        "cents": catalogue.paid_cents[on, sku],
        "freight_cents": np.full(n, 999),
        "returned": np.full(n, NEVER),
    }
    return Simulation(
        first_day=simulation.first_day,
        n_days=simulation.n_days,
        catalogue=catalogue,
        customers=Customers(**{k: np.concatenate([getattr(old, k), getattr(fraud, k)]) for k in vars(old)}),
        orders=_stack([simulation.orders, order]),
        lines=_stack([simulation.lines, line]),
        visits=simulation.visits,
        hazards=simulation.hazards,
    )


def in_time_order(simulation: Simulation) -> Simulation:
    """The same with customers sorted by registration, orders by time and lines by order."""
    who = np.argsort(simulation.customers.signed_up, kind="stable")
    new_customer = np.empty_like(who)
    new_customer[who] = np.arange(who.size)
    rank = np.argsort(simulation.orders["ordered"], kind="stable")
    new_order = np.empty_like(rank)
    new_order[rank] = np.arange(rank.size)
    orders = {k: v[rank] for k, v in simulation.orders.items()}
    orders["customer"] = new_customer[orders["customer"]]
    lines = dict(simulation.lines)
    lines["order"] = new_order[lines["order"]]
    by_order = np.argsort(lines["order"], kind="stable")
    return Simulation(
        first_day=simulation.first_day,
        n_days=simulation.n_days,
        catalogue=simulation.catalogue,
        customers=Customers(**{k: v[who] for k, v in vars(simulation.customers).items()}),
        orders=orders,
        lines={k: v[by_order] for k, v in lines.items()},
        visits={**simulation.visits, "customer": new_customer[simulation.visits["customer"]]},
        hazards={**simulation.hazards, "customer": new_customer[simulation.hazards["customer"]]},
    )


def status_changes(simulation: Simulation) -> dict[str, np.ndarray]:
    """order, status, at of every change that was known by the end of the last day, sorted by time.

    Abandoned checkouts have none.
    """
    orders = simulation.orders
    real = np.flatnonzero(~orders["is_abandoned"])
    columns = ("ordered", "approved", "handed_over", "delivered", "canceled", "refunded")
    order = np.tile(real, len(columns))
    status = np.repeat(np.arange(len(columns)), real.size)
    at = np.concatenate([orders[c][real] for c in columns])
    known = at < simulation.end
    order, status, at = order[known], status[known], at[known]
    rank = np.lexsort((status, order, at))
    return {"order": order[rank], "status": status[rank], "at": at[rank]}


def _baskets(segment: np.ndarray, catalogue: Catalogue, day: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Lines of one day's orders; order is the position in ``segment``. A SKU is at most once in an order.

    Baskets grow by what prices and promotions do to demand as a whole: a SKU's units then follow its own price
    even when half the shop is on offer.
    """
    weight = catalogue.weight[day][None, :] * catalogue.affinity[:, catalogue.category]
    chance = np.cumsum(weight, axis=1)
    chance = chance / chance[:, -1:] + np.arange(N_SEGMENTS)[:, None]
    usual = (weight / catalogue.price_effect[day]).sum(axis=1)
    lines = LINES_PER_ORDER * weight.sum(axis=1) / usual
    size = 1 + rng.poisson(np.maximum(lines - 1, 0.05)[segment])
    order = np.repeat(np.arange(segment.size), size)
    pick = np.searchsorted(chance.ravel(), segment[order] + rng.random(order.size), side="right")
    n_skus = catalogue.category.size
    key = np.unique(order * n_skus + pick % n_skus)
    order, sku = key // n_skus, key % n_skus
    mean = np.array([c.quantity for c in catalogue.categories])[catalogue.category[sku]]
    return {
        "order": order,
        "sku": sku,
        "quantity": 1 + rng.poisson(mean - 1),
        "cents": catalogue.paid_cents[day, sku],
        "freight_cents": 249 + 50 * rng.integers(0, 9, order.size),
    }


def _fulfil(
    ordered: np.ndarray,
    is_abandoned: np.ndarray,
    basket: dict[str, np.ndarray],
    zone: np.ndarray,
    transit: np.ndarray,
    catalogue: Catalogue,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """What becomes of a day's orders, as instants; adds ``returned`` to the basket's lines."""
    n = ordered.size
    order, vendor = basket["order"], catalogue.vendor[basket["sku"]]
    approved = ordered + np.minimum(rng.lognormal(np.log(2.5), 0.9, n) * 3600, 2 * DAY).astype(np.int64)
    handling = catalogue.vendor_handling[vendor] * rng.gamma(4.0, 0.25, order.size)
    held_up = rng.random(order.size) < catalogue.vendor_late_rate[vendor]
    handling = handling + np.where(held_up, 4.0 + rng.exponential(4.0, order.size), 0.0)
    slowest = np.zeros(n)
    np.maximum.at(slowest, order, handling)
    handed_over = approved + (slowest * DAY).astype(np.int64) + 3600
    delivered = handed_over + ((transit[zone] * rng.gamma(8.0, 0.125, n) + 0.3) * DAY).astype(np.int64)
    estimated = ((ordered // DAY) + np.ceil(5.0 + 1.6 * transit[zone]).astype(np.int64)) * DAY + DAY - 1

    is_canceled = (rng.random(n) < 0.035) & ~is_abandoned
    before_approval = rng.random(n) < 0.4
    canceled = np.where(
        before_approval,
        ordered + (rng.uniform(0.05, 0.9, n) * (approved - ordered)).astype(np.int64),
        approved + (rng.uniform(0.05, 0.95, n) * (handed_over - approved)).astype(np.int64),
    )
    never_approved = is_abandoned | (is_canceled & before_approval)
    never_shipped = is_abandoned | is_canceled
    delivered = np.where(never_shipped, NEVER, delivered)

    chance = np.array([c.return_rate for c in catalogue.categories])[catalogue.category[basket["sku"]]]
    is_late = delivered > estimated
    starts_return = rng.random(order.size) < chance * np.where(is_late, 1.8, 1.0)[order]
    some = np.zeros(n, bool)
    some[order[starts_return]] = True
    whole = some & (rng.random(n) < 0.55)
    sent_back = (starts_return | whole[order]) & ~never_shipped[order]
    asked = np.where(never_shipped, 0, delivered) + (rng.uniform(1.5, 20, n) * DAY).astype(np.int64)
    basket["returned"] = np.where(sent_back, asked[order], NEVER)
    n_lines = np.bincount(order, minlength=n)
    n_back = np.bincount(order[sent_back], minlength=n)
    all_back = (n_back == n_lines) & ~never_shipped
    return {
        "ordered": ordered,
        "is_abandoned": is_abandoned,
        "approved": np.where(never_approved, NEVER, approved),
        "handed_over": np.where(never_shipped, NEVER, handed_over),
        "delivered": delivered,
        "canceled": np.where(is_canceled, canceled, NEVER),
        "refunded": np.where(all_back, asked + (rng.uniform(1, 6, n) * DAY).astype(np.int64), NEVER),
        "estimated": estimated,
    }


def _transit_days() -> np.ndarray:
    """Mean days from hand-over to delivery for each of ``catalogue.ZONES``."""
    return np.array([1.6, 2.0, 2.6, 2.0, 1.8, 1.9, 2.3, 2.8, 2.4, 2.2, 2.9, 3.4])


def _second_of_day(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(24, n, p=_HOURS / _HOURS.sum()) * 3600 + rng.integers(0, 3600, n)


def _is_month_first(first_day: date, offset: int) -> bool:
    return date.fromordinal(first_day.toordinal() + offset).day == 1


def _stack(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
