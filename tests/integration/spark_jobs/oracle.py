"""The feature views again, by hand: loops over what was known, no window, no interval, no Spark.

Slow and literal on purpose. Versions are dicts with the columns of ``lake/core``.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta
from typing import Any

Row = dict[str, Any]

KEYS = {
    "orders": ("marketplace", "order_id"),
    "order_items": ("marketplace", "order_id", "order_item_id"),
    "products": ("marketplace", "product_id"),
    "events": ("source", "visitor_id", "event_on", "event_id"),
}


def known(versions: list[Row], table: str, as_of: date) -> list[Row]:
    """The newest version of every key among those known by ``as_of``; nothing of a key that is deleted by then."""
    newest: dict[tuple, Row] = {}
    for row in versions:
        if row["known_on"] > as_of:
            continue
        key = tuple(row[name] for name in KEYS[table])
        best = newest.get(key)
        if best is None or (row["known_at"], row["known_on"]) > (best["known_at"], best["known_on"]):
            newest[key] = row
    return [row for row in newest.values() if not row.get("is_deleted")]


def _age(as_of: date, day: date) -> int:
    return (as_of - day).days


def _within(as_of: date, day: date, days: int) -> bool:
    return 0 <= _age(as_of, day) < days


def _days(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() / 86400


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _late(order: Row) -> bool:
    due = order["estimated_delivery_at"]
    return due is not None and order["delivered_at"].date() > due.date()


def visits(events: list[Row], as_of: date) -> list[Row]:
    """Sessions: by visitor and day, cut at 30 minutes of silence and at another campaign."""
    by_visitor = defaultdict(list)
    for event in known(events, "events", as_of):
        if event["event_on"] <= as_of:
            by_visitor[event["source"], event["visitor_id"], event["event_on"]].append(event)
    found: list[Row] = []
    for (source, visitor, day), clicks in by_visitor.items():
        clicks.sort(key=lambda row: (row["event_at"], row["event_id"]))
        last, campaign, of_day = None, None, []
        for event in clicks:
            is_other = event["campaign"] is not None and event["campaign"] != campaign
            if last is None or event["event_at"] - last >= timedelta(minutes=30) or is_other:
                of_day.append(
                    {
                        "source": source, "marketplace": event["marketplace"], "visitor_id": visitor,
                        "session_on": day, "first": event["event_id"], "started_at": event["event_at"],
                        "customer_id": None, "campaign": None, "n_events": 0, "view": 0, "cart": 0, "purchase": 0,
                        "search": 0, "known_at": event["known_at"],
                    }
                )  # fmt: skip
            visit = of_day[-1]
            last = visit["ended_at"] = event["event_at"]
            campaign = event["campaign"] or campaign
            visit["customer_id"] = event["customer_id"] or visit["customer_id"]
            visit["campaign"] = event["campaign"] or visit["campaign"]
            visit["known_at"] = max(event["known_at"], visit["known_at"])
            visit["n_events"] += 1
            visit[event["event_type"]] += 1
        for visit in of_day:
            visit["is_bot"] = _is_bot(clicks)
        found += of_day
    return found


def _is_bot(clicks: list[Row]) -> bool:
    """A visitor's day: a robot's user agent, over 60 events in less than a minute, over 500 without a cart."""
    times = [click["event_at"] for click in clicks]
    in_a_minute = max(sum(timedelta(0) <= other - at < timedelta(minutes=1) for other in times) for at in times)
    buys = any(click["event_type"] in ("cart", "purchase") for click in clicks)
    return any(click["is_bot_agent"] for click in clicks) or in_a_minute > 60 or (len(clicks) > 500 and not buys)


def user_behavior(
    orders: list[Row], items: list[Row], products: list[Row], events: list[Row], as_of: date
) -> dict[str, Row]:
    """Customer -> features."""
    lines = defaultdict(list)
    for item in known(items, "order_items", as_of):
        lines[item["marketplace"], item["order_id"]].append(item)
    category = {(p["marketplace"], p["product_id"]): p["category"] for p in known(products, "products", as_of)}
    by_customer = defaultdict(list)
    for order in known(orders, "orders", as_of):
        if order["customer_id"] is not None and order["ordered_on"] <= as_of:
            by_customer[order["customer_id"]].append(order)
    sessions = defaultdict(list)
    for visit in visits(events, as_of):
        if not visit["is_bot"]:
            sessions[visit["customer_id"]].append(visit)

    features = {}
    for customer, all_orders in by_customer.items():
        sold = [order for order in all_orders if order["status"] not in ("canceled", "unavailable")]
        if not sold:
            continue
        spent = [
            (order["ordered_on"], line["item_amount"] + (line["freight_amount"] or 0), line, order["marketplace"])
            for order in sold
            for line in lines[order["marketplace"], order["order_id"]]
        ]
        total = sum(money for _, money, _, _ in spent)
        days = [order["ordered_on"] for order in sold]
        delivered = [o for o in sold if o["delivered_at"] is not None and o["delivered_at"].date() <= as_of]
        mine = sessions[customer]
        seen = {category.get((market, line["product_id"])) for _, _, line, market in spent} - {None}
        features[customer] = {
            "recency_days": _age(as_of, max(days)),
            "tenure_days": _age(as_of, min(days)),
            "n_orders": len(sold),
            **{f"n_orders_{n}d": sum(_within(as_of, day, n) for day in days) for n in (30, 90, 180, 365)},
            "order_amount_total": total,
            **{
                f"order_amount_{n}d": sum(money for day, money, _, _ in spent if _within(as_of, day, n))
                for n in (90, 365)
            },
            "avg_order_amount": total / len(sold),
            "avg_days_between_orders": (max(days) - min(days)).days / (len(sold) - 1) if len(sold) > 1 else None,
            "n_cancelled": len(all_orders) - len(sold),
            "n_categories": len(seen),
            "n_marketplaces": len({order["marketplace"] for order in sold}),
            "n_items": len(spent),
            "avg_delivery_days": _mean([_days(o["ordered_at"], o["delivered_at"]) for o in delivered]),
            "n_late_deliveries": sum(_late(o) for o in delivered),
            "n_sessions_30d": sum(_within(as_of, v["session_on"], 30) for v in mine),
            "n_sessions_90d": sum(_within(as_of, v["session_on"], 90) for v in mine),
            "n_product_views_30d": sum(v["view"] for v in mine if _within(as_of, v["session_on"], 30)),
            "n_cart_adds_30d": sum(v["cart"] for v in mine if _within(as_of, v["session_on"], 30)),
            "days_since_last_session": min((_age(as_of, v["session_on"]) for v in mine), default=None),
            "last_order_on": max(days),
        }
    return features


def vendor_performance(orders: list[Row], items: list[Row], as_of: date) -> dict[tuple[str, str], Row]:
    """(marketplace, vendor) -> features, without the shrunk rate."""
    by_order = {(o["marketplace"], o["order_id"]): o for o in known(orders, "orders", as_of)}
    of_vendor: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for item in known(items, "order_items", as_of):
        order = by_order.get((item["marketplace"], item["order_id"]))
        if order is not None and item["vendor_id"] is not None and order["ordered_on"] <= as_of:
            of_vendor[item["marketplace"], item["vendor_id"]][item["order_id"]].append(item)
    features = {}
    for (market, vendor), baskets in of_vendor.items():
        placed, delivered, n_cancelled, n_items, gmv = [], [], 0, 0, 0.0
        for order_id, basket in baskets.items():
            order = by_order[market, order_id]
            is_sold = order["status"] not in ("canceled", "unavailable")
            if _within(as_of, order["ordered_on"], 90):
                if is_sold:
                    placed.append(order)
                    n_items += len(basket)
                    gmv += sum(item["item_amount"] for item in basket)
                else:
                    n_cancelled += 1
            if is_sold and order["delivered_at"] is not None and _within(as_of, order["delivered_at"].date(), 90):
                delivered.append(order)
        if not (placed or delivered or n_cancelled):
            continue
        n_late = sum(_late(order) for order in delivered)
        features[market, vendor] = {
            "n_orders_90d": len(placed),
            "n_items_90d": n_items,
            "gmv_90d": gmv,
            "n_delivered_90d": len(delivered),
            "n_late_90d": n_late,
            "late_rate_90d": n_late / len(delivered) if delivered else None,
            "avg_delivery_days_90d": _mean([_days(o["ordered_at"], o["delivered_at"]) for o in delivered]),
            "cancel_rate_90d": n_cancelled / (n_cancelled + len(placed)) if n_cancelled + len(placed) else None,
        }
    return features


def demand(orders: list[Row], items: list[Row], as_of: date, first_day: date) -> dict[tuple[str, str, date], Row]:
    """(marketplace, product, day of sale) -> units and revenue as known by ``as_of``; nothing where there are none."""
    by_order = {(o["marketplace"], o["order_id"]): o for o in known(orders, "orders", as_of)}
    totals: dict[tuple[str, str, date], Row] = defaultdict(lambda: {"units": 0.0, "revenue": 0.0})
    for item in known(items, "order_items", as_of):
        order = by_order.get((item["marketplace"], item["order_id"]))
        if order is None or order["status"] in ("canceled", "unavailable", "returned") or item["product_id"] is None:
            continue
        if order["ordered_on"] >= first_day:
            cell = totals[item["marketplace"], item["product_id"], order["ordered_on"]]
            cell["units"] += item["quantity"]
            cell["revenue"] += item["item_amount"]
    return {key: cell for key, cell in totals.items() if cell["units"] or abs(cell["revenue"]) > 1e-9}
