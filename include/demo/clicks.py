"""The shop's click stream: one gzipped JSONL file a day of arrival, as bytes."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.demo.dirt import Dirt
from include.demo.people import People
from include.demo.simulate import DAY, Simulation, day_factors
from include.demo.sizes import Sizes

VIEW, SEARCH, CART, PURCHASE = range(4)
EVENT_TYPES = ("view", "search", "cart", "purchase")
CAMPAIGNS = (None, "newsletter", "search-ads", "social")
LATE_SHARE, REPEAT_SHARE, BROKEN_SHARE = 0.015, 0.004, 0.0012
"""Shares of events that arrive days later, that are sent twice, that are damaged on the way."""
MAX_BROKEN_SHARE = 0.01
"""No day's file has a larger share of damaged lines."""


def click_files(
    sim: Simulation, people: People, sizes: Sizes, rng: np.random.Generator
) -> tuple[dict[str, bytes], list[Dirt], int]:
    """``{"clicks/YYYY-MM-DD.jsonl.gz": bytes}`` for every day, the planted dirt and the number of lines."""
    sessions, events = _sessions_and_events(sim, sizes, rng)
    events = _arrivals(events, sim, rng)
    lines = _as_json(sim, people, sessions, events)
    return _files(sim, events, lines, rng)


def _sessions_and_events(
    sim: Simulation, sizes: Sizes, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Sessions: customer (-1 anonymous), device, is_logged_in, campaign. Events: session, type, sku (-1), at (ms)."""
    orders, lines = sim.orders, sim.lines
    is_fraud = orders["burst"] >= 0
    tracked = np.flatnonzero((rng.random(orders["ordered"].size) < sizes.tracked_share) | is_fraud)
    looked_before = tracked[rng.random(tracked.size) < 0.30]
    n_anonymous = rng.poisson(sizes.anonymous_per_day * day_factors(sim.first_day, sim.n_days))
    anonymous_at = sim.start + np.repeat(np.arange(sim.n_days), n_anonymous) * DAY
    anonymous_at = anonymous_at + rng.integers(0, DAY, anonymous_at.size)
    before_at = orders["ordered"][looked_before] - (rng.uniform(0.15, 4.0, looked_before.size) * DAY).astype(np.int64)
    before_at = np.maximum(before_at, sim.start)

    # Sessions in four blocks: those with a checkout, visits some days before one, other visits, passers-by.
    length = 90 + rng.exponential(360, tracked.size)
    starts = np.concatenate([orders["ordered"][tracked] - length, before_at, sim.visits["at"], anonymous_at])
    customer = np.concatenate(
        [
            orders["customer"][tracked],
            orders["customer"][looked_before],
            sim.visits["customer"],
            np.full(anonymous_at.size, -1),
        ]
    )
    n = starts.size
    is_checkout = np.arange(n) < tracked.size
    sessions = {
        "customer": customer,
        "device": np.where(customer >= 0, (rng.random(n) < 0.25).astype(int), rng.integers(0, 2**40, n)),
        "is_logged_in": (customer >= 0) & (rng.random(n) < np.where(is_checkout, 0.96, 0.85)),
        "campaign": rng.choice(4, n, p=[0.72, 0.12, 0.10, 0.06]),
    }

    # Lines of tracked orders: a view, a cart, and a purchase unless the checkout was abandoned.
    session_of_order = np.full(orders["ordered"].size, -1)
    session_of_order[tracked] = np.arange(tracked.size)
    line = np.flatnonzero(session_of_order[lines["order"]] >= 0)
    of = session_of_order[lines["order"][line]]
    sku, ordered = lines["sku"][line], orders["ordered"][lines["order"][line]]
    view_at = starts[of] + rng.uniform(0.02, 0.60, line.size) * length[of]
    cart_at = view_at + rng.uniform(0.05, 0.35, line.size) * length[of]
    bought = ~orders["is_abandoned"][lines["order"][line]]
    nth = np.arange(line.size) - np.searchsorted(of, of)
    # A visit before the order looks at the first of its SKUs.
    first_line = np.searchsorted(lines["order"], looked_before)
    before_session = tracked.size + np.arange(looked_before.size)

    n_views = rng.poisson(np.where(is_checkout, 0.5, 0.9))
    n_views[tracked.size + looked_before.size :] += 1
    other = np.repeat(np.arange(n), n_views)
    other_at = starts[other] + rng.uniform(5, 600, other.size)
    other_at = np.where(
        is_checkout[other], np.minimum(other_at, starts[other] + length[other % tracked.size]), other_at
    )
    other_sku = _popular(sim, ((other_at - sim.start) // DAY).astype(int), rng)
    carted = np.flatnonzero(~is_checkout[other] & (rng.random(other.size) < 0.08))
    searching = np.flatnonzero(rng.random(n) < 0.20)
    parts = [
        (of, VIEW, sku, view_at),
        (of, CART, sku, cart_at),
        (of[bought], PURCHASE, sku[bought], ordered[bought] + 0.2 + 0.01 * nth[bought]),
        (before_session, VIEW, lines["sku"][first_line], starts[before_session] + 20.0),
        (other, VIEW, other_sku, other_at),
        (other[carted], CART, other_sku[carted], other_at[carted] + 15.0),
        (searching, SEARCH, np.full(searching.size, -1), starts[searching] + 1.0),
    ]
    events = {
        "session": np.concatenate([p[0] for p in parts]),
        "type": np.concatenate([np.full(p[0].size, p[1]) for p in parts]),
        "sku": np.concatenate([p[2] for p in parts]),
        "at": (np.concatenate([p[3] for p in parts]) * 1000).astype(np.int64),
    }
    return sessions, events


def _popular(sim: Simulation, day: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A SKU for each of ``day``, by the demand of that week, shape like ``day``."""
    cat = sim.catalogue
    weeks = np.arange(0, sim.n_days, 7)
    chance = np.cumsum(cat.weight[weeks], axis=1)
    chance = chance / chance[:, -1:] + np.arange(weeks.size)[:, None]
    week = np.clip(day, 0, sim.n_days - 1) // 7
    pick = np.searchsorted(chance.ravel(), week + rng.random(day.size), side="right")
    return np.minimum(pick, chance.size - 1) % len(cat.name)


def _arrivals(events: dict[str, np.ndarray], sim: Simulation, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Adds sent (ms), day (offset of the file), is_late, is_repeat; sorted by arrival; within the range only."""
    n = events["at"].size
    is_late = rng.random(n) < LATE_SHARE
    delay = np.where(is_late, rng.integers(DAY, 3 * DAY, n) * 1000, rng.integers(80, 2500, n))
    events = {**events, "id": rng.integers(0, 2**63, n), "sent": events["at"] + delay}
    events["is_late"], events["is_repeat"] = is_late, np.zeros(n, bool)
    # Sent twice: the same line again, or, one time in four, once more a day later.
    again = np.flatnonzero(rng.random(n) < REPEAT_SHARE)
    repeats = {key: values[again] for key, values in events.items()}
    repeats["is_repeat"] = np.ones(again.size, bool)
    repeats["sent"] = repeats["sent"] + np.where(rng.random(again.size) < 0.25, DAY * 1000, 0)
    events = {key: np.concatenate([events[key], repeats[key]]) for key in events}
    events["day"] = (events["sent"] // 1000 - sim.start) // DAY
    inside = (events["at"] >= sim.start * 1000) & (events["day"] < sim.n_days)
    rank = np.lexsort((events["is_repeat"], events["id"], events["sent"]))
    return {key: values[rank][inside[rank]] for key, values in events.items()}


def _as_json(
    sim: Simulation, people: People, sessions: dict[str, np.ndarray], events: dict[str, np.ndarray]
) -> list[str]:
    """One JSON object an event, keys in the order of the documentation."""
    session = events["session"]
    customer = sessions["customer"][session]
    email = np.where(sessions["is_logged_in"][session], sim.customers.person[customer], -1)
    known = pc.binary_join_element_wise('"', pa.array(people.email, pa.string()), '"', "")
    email_json = known.take(pa.array(email, mask=email < 0)).fill_null("null")
    device = sessions["device"][session]
    visitor = np.where(customer >= 0, customer * 2 + device, device + 2**41).astype(np.uint64)
    # An odd multiplier is a bijection of 48 bits: two devices never share an id.
    hashed = (visitor * np.uint64(0x9E3779B97F4B) % np.uint64(2**48)).tolist()
    sku = events["sku"]
    products = pa.array([f'"{i}"' for i in range(1, len(sim.catalogue.name) + 1)])
    campaigns = pa.array(["null" if c is None else f'"{c}"' for c in CAMPAIGNS])
    joined = pc.binary_join_element_wise(
        '{"event_id":"',
        pa.array([f"{i:016x}" for i in events["id"].tolist()]),
        '","visitor_id":"',
        pa.array([f"v{i:012x}" for i in hashed]),
        '","customer_email":',
        email_json,
        ',"event_type":"',
        pa.array(EVENT_TYPES).take(pa.array(events["type"])),
        '","product_id":',
        products.take(pa.array(sku, mask=sku < 0)).fill_null("null"),
        ',"event_at":"',
        pa.array(np.datetime_as_string(events["at"].astype("datetime64[ms]"))),
        'Z","sent_at":"',
        pa.array(np.datetime_as_string(events["sent"].astype("datetime64[ms]"))),
        'Z","campaign":',
        campaigns.take(pa.array(sessions["campaign"][session])),
        "}",
        "",
    )
    return joined.to_pylist()


def _files(
    sim: Simulation, events: dict[str, np.ndarray], lines: list[str], rng: np.random.Generator
) -> tuple[dict[str, bytes], list[Dirt], int]:
    bounds = np.searchsorted(events["day"], np.arange(sim.n_days + 1))
    broken = rng.random(len(lines)) < BROKEN_SHARE
    broken &= ~(events["is_late"] | np.isin(events["id"], events["id"][events["is_repeat"]]))
    event_day = (events["at"] // 1000 - sim.start) // DAY
    dirt, files = [], {}
    for day in range(sim.n_days):
        on = sim.first_day.fromordinal(sim.first_day.toordinal() + day)
        name = f"clicks/{on.isoformat()}.jsonl.gz"
        first, last = int(bounds[day]), int(bounds[day + 1])
        damaged = first + np.flatnonzero(broken[first:last])[: int((last - first) * MAX_BROKEN_SHARE)]
        for i in damaged.tolist():
            kind = ("truncated_json", "not_an_object", "nan_value")[int(rng.integers(3))]
            dirt.append(_dirt(kind, events, i, first, name, on))
            lines[i] = _damage(lines[i], kind)
        for i in (first + np.flatnonzero(events["is_repeat"][first:last])).tolist():
            dirt.append(_dirt("repeated_event", events, i, first, name, on))
        for i in (first + np.flatnonzero((event_day < day)[first:last] & events["is_late"][first:last])).tolist():
            dirt.append(_dirt("late_event", events, i, first, name, on))
        text = "".join(f"{line}\n" for line in lines[first:last])
        files[name] = gzip.compress(text.encode(), compresslevel=5, mtime=0)
    return files, dirt, len(lines)


def _dirt(kind: str, events: dict[str, np.ndarray], i: int, first: int, name: str, on) -> Dirt:
    return Dirt("demo_clicks", "events", kind, f"{int(events['id'][i]):016x}", on, f"demo/{name}", i - first + 1)


def _damage(line: str, kind: str) -> str:
    if kind == "truncated_json":
        return line[: len(line) * 2 // 3]
    if kind == "not_an_object":
        return f'["{line[13:29]}"]'
    start = line.index('"event_at":') + len('"event_at":')
    return f"{line[:start]}NaN{line[line.index(',', start) :]}"
