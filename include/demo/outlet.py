"""The second shop: CSV files of a day, a row each time something became known on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from include.demo import aftermath
from include.demo.catalogue import ZONES
from include.demo.dirt import Dirt
from include.demo.people import People
from include.demo.simulate import APPROVED, DAY, DELIVERED, SHIPPED, Simulation, status_changes
from include.demo.sizes import Sizes

SOURCE = "demo_outlet"
HEADERS = {
    "orders": "order_id,customer_email,customer_region,ordered_at,status,currency,updated_at",
    "order_items": "order_id,line,sku,vendor_code,quantity,unit_price,freight,updated_at",
    "payments": "order_id,payment_id,payment_type,installments,amount,paid_at",
    "shipments": "order_id,approved_at,handed_over_at,delivered_at,estimated_delivery_at,updated_at",
    "products": "sku,name,category,list_price,currency,gtin,updated_at",
    "vendors": "vendor_code,name,region,updated_at",
    "refunds": "refund_id,order_id,line,sku,quantity,amount,reason,refunded_at",
    "reviews": "review_id,order_id,sku,customer_email,rating,n_characters,reviewed_at",
}
STATUSES = ("created", "approved", "shipped", "delivered", "canceled", "returned")
REASONS = ("damaged", "wrong_item", "changed_mind")
PAYMENT_TYPES = ("card", "paypal", "bank_transfer")
CORRECTED_SHARE, REPEATED_SHARE = 0.008, 0.003
RESENT_SHARE = 0.7
"""Broken rows that come again, whole, on the next day."""
_BREAKS = {
    "orders": ("wrong_column_count", "impossible_date", "missing_key"),
    "order_items": ("wrong_column_count", "not_a_number", "missing_key", "bad_quantity", "impossible_date"),
    "payments": ("wrong_column_count", "not_a_number", "missing_key"),
    "shipments": ("wrong_column_count", "impossible_date", "missing_key"),
}


@dataclass(frozen=True)
class Row:
    """A row before it is written. ``at`` is when it became known (epoch seconds), its last field says the same."""

    at: int
    fields: list[str]
    kind: str = ""
    detail: str = ""


def outlet_files(
    sim: Simulation,
    people: People,
    gtins: list[str],
    sizes: Sizes,
    rng: np.random.Generator,
    rng_aftermath: np.random.Generator,
) -> tuple[dict[str, bytes], list[Dirt], int]:
    """``{"outlet/YYYY-MM-DD/<entity>.csv": bytes}`` for every day and entity, the planted dirt, the number of rows.

    A day's file of an entity without news has its header only. ``gtins`` by SKU.
    """
    files: dict[str, bytes] = {}
    dirt: list[Dirt] = []
    n_rows = 0
    days = [sim.first_day + timedelta(days=d) for d in range(sim.n_days)]
    clean = _clean_rows(sim, people, gtins, rng) | _aftermath_rows(sim, people, rng_aftermath)
    for entity, rows in clean.items():
        rows = _with_corrections(entity, rows, sim.end, rng)
        rows = _with_breaks(entity, rows, sim, sizes, rng)
        by_day: list[list[Row]] = [[] for _ in days]
        for row in sorted(rows, key=lambda row: row.at):
            by_day[(row.at - sim.start) // DAY].append(row)
        for day, known in zip(days, by_day, strict=True):
            name = f"outlet/{day.isoformat()}/{entity}.csv"
            lines = [HEADERS[entity]]
            for row in known:
                lines.append(_csv(row.fields))
                if row.kind:
                    key = row.detail if row.kind == "missing_key" else ",".join(_key(entity, row))
                    dirt.append(Dirt(SOURCE, entity, row.kind, key, day, f"demo/{name}", len(lines), row.detail))
                elif entity in _BREAKS and rng.random() < REPEATED_SHARE:
                    lines.append(lines[-1])
                    key = ",".join(_key(entity, row))
                    dirt.append(Dirt(SOURCE, entity, "repeated_row", key, day, f"demo/{name}", len(lines)))
            n_rows += len(lines) - 1
            files[name] = ("\n".join(lines) + "\n").encode()
    return files, dirt, n_rows


def order_number(order: int) -> str:
    """The outlet's order id of the order at a position in the simulation."""
    return f"L{1_000_001 + order}"


def sku_code(sku: int) -> str:
    """The outlet's SKU of a position in its catalogue."""
    return f"HX-{sku + 1:04d}"


def _clean_rows(sim: Simulation, people: People, gtins: list[str], rng: np.random.Generator) -> dict[str, list[Row]]:
    orders, lines, cat = sim.orders, sim.lines, sim.catalogue
    real = ~orders["is_abandoned"]
    person = sim.customers.person[orders["customer"]]
    email, region = people.email[person].tolist(), [ZONES[z] for z in people.zone[person]]
    when = {c: _iso(orders[c]) for c in ("ordered", "approved", "handed_over", "delivered", "estimated")}
    numbers = [order_number(i) for i in range(real.size)]

    order_rows, shipments = [], []
    changes = status_changes(sim)
    iso = _iso(changes["at"])
    for i, status, at, text in zip(
        changes["order"].tolist(), changes["status"].tolist(), changes["at"].tolist(), iso, strict=True
    ):
        order_rows.append(Row(at, [numbers[i], email[i], region[i], when["ordered"][i], STATUSES[status], "USD", text]))
        if status in (APPROVED, SHIPPED, DELIVERED):
            known = [when["approved"][i]]
            known += [
                when["handed_over"][i] if status >= SHIPPED else "",
                when["delivered"][i] if status == DELIVERED else "",
            ]
            shipments.append(Row(at, [numbers[i], *known, when["estimated"][i], text]))

    items = []
    for i, k, sku, quantity, cents, freight in zip(
        lines["order"].tolist(),
        _line_numbers(sim).tolist(),
        lines["sku"].tolist(),
        lines["quantity"].tolist(),
        lines["cents"].tolist(),
        lines["freight_cents"].tolist(),
        strict=True,
    ):
        if real[i]:
            vendor = f"V-{cat.vendor[sku] + 1:02d}"
            fields = [numbers[i], str(k), sku_code(sku), vendor, str(quantity), _usd(cents), _usd(freight)]
            items.append(Row(int(orders["ordered"][i]), [*fields, when["ordered"][i]]))

    owed = np.bincount(lines["order"], lines["quantity"] * lines["cents"] + lines["freight_cents"], minlength=real.size)
    payments = []
    kinds = rng.choice(3, real.size, p=[0.7, 0.22, 0.08])
    installments = np.where(kinds == 0, rng.choice([1, 1, 1, 2, 3, 6], real.size), 1)
    voucher = np.where(rng.random(real.size) < 0.05, np.round(owed * 0.2), 0)
    for i in np.flatnonzero(real).tolist():
        at, text = int(orders["ordered"][i]), when["ordered"][i]
        rest = int(owed[i] - voucher[i])
        payments.append(Row(at, [numbers[i], "1", PAYMENT_TYPES[kinds[i]], str(installments[i]), _usd(rest), text]))
        if voucher[i]:
            payments.append(Row(at, [numbers[i], "2", "voucher", "1", _usd(int(voucher[i])), text]))

    return {
        "orders": order_rows,
        "order_items": items,
        "payments": payments,
        "shipments": shipments,
        "products": _product_rows(sim, gtins),
        "vendors": [
            Row(sim.start, [f"V-{v + 1:02d}", cat.vendor_name[v], ZONES[cat.vendor_zone[v]], _iso([sim.start])[0]])
            for v in range(len(cat.vendor_name))
        ],
    }


def _line_numbers(sim: Simulation) -> np.ndarray:
    """The number of each line within its order, from 1."""
    order = sim.lines["order"]
    return np.arange(order.size) - np.searchsorted(order, order) + 1


def _aftermath_rows(sim: Simulation, people: People, rng: np.random.Generator) -> dict[str, list[Row]]:
    lines, nth = sim.lines, _line_numbers(sim)
    email = people.email[sim.customers.person[sim.orders["customer"]]]
    refunds = []
    back, paid_at = aftermath.returned_lines(sim), aftermath.paid_back(sim, rng)
    reasons = rng.integers(0, len(REASONS), back.size)
    for line, at, reason in zip(back.tolist(), paid_at.tolist(), reasons.tolist(), strict=True):
        if at < sim.end:
            number, n, sku = order_number(int(lines["order"][line])), int(nth[line]), int(lines["sku"][line])
            quantity = int(lines["quantity"][line])
            amount = _usd(quantity * int(lines["cents"][line]))
            fields = [f"R-{number}-{n}", number, str(n), sku_code(sku), str(quantity), amount, REASONS[reason]]
            refunds.append(Row(at, [*fields, _iso([at])[0]]))
    found = aftermath.reviews(sim, rng)
    reviews = []
    for nth_review, (line, at, rating, length) in enumerate(
        zip(*(found[name].tolist() for name in ("line", "at", "rating", "n_characters")), strict=True), start=1
    ):
        order, sku = int(lines["order"][line]), int(lines["sku"][line])
        fields = [f"RV{nth_review:06d}", order_number(order), sku_code(sku), email[order], str(rating), str(length)]
        reviews.append(Row(at, [*fields, _iso([at])[0]]))
    return {"refunds": refunds, "reviews": reviews}


def _product_rows(sim: Simulation, gtins: list[str]) -> list[Row]:
    cat = sim.catalogue
    news = [(sku, max(int(day), 0)) for sku, day in enumerate(cat.launch_day)]
    news += [
        (int(sku), int(day))
        for sku, day in zip(cat.price_changes["sku"], cat.price_changes["day"], strict=True)
        if day > cat.launch_day[sku]
    ]
    rows = []
    for sku, day in sorted(news, key=lambda item: (item[1], item[0])):
        at = sim.start + day * DAY
        category = cat.categories[cat.category[sku]].name
        price = _usd(int(cat.list_cents[day, sku]))
        rows.append(Row(at, [sku_code(sku), cat.name[sku], category, price, "USD", gtins[sku], _iso([at])[0]]))
    return rows


def _with_corrections(entity: str, rows: list[Row], end: int, rng: np.random.Generator) -> list[Row]:
    """Rows that are sent again one to six days later with other values (a region, a quantity or a price)."""
    if entity not in ("orders", "order_items"):
        return rows
    again = []
    last_word = {row.fields[0]: i for i, row in enumerate(rows)}
    for i in np.flatnonzero(rng.random(len(rows)) < CORRECTED_SHARE).tolist():
        row = rows[i]
        at = row.at + int(rng.integers(DAY, 6 * DAY))
        fields = list(row.fields)
        if entity == "orders":
            # Only of an order's last word: a correction must not turn its status back.
            if last_word[fields[0]] != i or fields[4] not in ("delivered", "canceled", "returned"):
                continue
            column, value = 2, ZONES[(ZONES.index(fields[2]) + 1) % len(ZONES)]
        elif rng.random() < 0.5:
            column, value = 4, str(int(fields[4]) + 1)
        else:
            column, value = 5, f"{float(fields[5]) * 0.9:.2f}"
        if at < end:
            detail = f"{HEADERS[entity].split(',')[column]}: {fields[column]} -> {value}"
            fields[column], fields[-1] = value, _iso([at])[0]
            again.append(Row(at, fields, "correction", detail))
    return rows + again


def _with_breaks(entity: str, rows: list[Row], sim: Simulation, sizes: Sizes, rng: np.random.Generator) -> list[Row]:
    """At most one damaged row in a day's file, never in a file so small that one is much."""
    if entity not in _BREAKS:
        return rows
    day = (np.array([row.at for row in rows]) - sim.start) // DAY
    count = np.bincount(day, minlength=sim.n_days)
    by_key: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_key.setdefault(_key(entity, row), []).append(row)
    result = list(rows)
    for number in np.flatnonzero((count >= sizes.rows_per_broken) & (rng.random(sim.n_days) < sizes.broken_row_chance)):
        i = int(rng.choice(np.flatnonzero(day == number)))
        row = rows[i]
        if row.kind:
            continue
        kind = str(rng.choice(_BREAKS[entity]))
        result[i] = _broken(entity, row, kind)
        again_at = sim.start + (int(number) + 1) * DAY + 3 * 3600
        if again_at < sim.end and rng.random() < RESENT_SHARE:
            # What is sent again is what is known by then, not what was true when the row broke.
            known = [r for r in by_key[_key(entity, row)] if r.at <= again_at]
            fields = list(max(known, key=lambda r: r.at).fields)
            if entity != "payments":
                fields[-1] = _iso([again_at])[0]
            result.append(Row(again_at, fields, "resent_after_broken", kind))
    return result


def _broken(entity: str, row: Row, kind: str) -> Row:
    columns = HEADERS[entity].split(",")
    fields = list(row.fields)
    key = ",".join(_key(entity, row))
    if kind == "wrong_column_count":
        del fields[3]
    elif kind == "not_a_number":
        fields[columns.index("amount" if entity == "payments" else "unit_price")] = "n/a"
    elif kind == "impossible_date":
        fields[-1] = fields[-1][:5] + "02-30" + fields[-1][10:]
    elif kind == "missing_key":
        fields[0] = ""
    elif kind == "bad_quantity":
        fields[columns.index("quantity")] = "-3"
    return replace(row, fields=fields, kind=kind, detail=key)


def _key(entity: str, row: Row) -> tuple[str, ...]:
    return tuple(row.fields[: 2 if entity in ("order_items", "payments") else 1])


def _iso(seconds) -> list[str]:
    """ISO 8601 in UTC. Instants that never came give some text that nobody writes."""
    clipped = np.clip(np.asarray(seconds, dtype=np.int64), 0, 2**33)
    return [f"{text}Z" for text in np.datetime_as_string(clipped.astype("datetime64[s]")).tolist()]


def _usd(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _csv(fields: list[str]) -> str:
    return ",".join(f'"{f.replace(chr(34), chr(34) * 2)}"' if ("," in f or '"' in f) else f for f in fields)
