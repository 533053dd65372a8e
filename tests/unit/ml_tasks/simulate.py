"""Small worlds with a known truth, in the shapes of the lake."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from include import lake
from include.dates import month_firsts
from ml_tasks.lifecycle.usecase import Context

AS_OF = date(2025, 12, 31)
HORIZON_DAYS = {"demand_forecast": 28, "demand_category": 28, "churn": 90}


def context(horizon_days: int, as_of: date = AS_OF, n_cutoffs: int = 12) -> Context:
    return Context(as_of, horizon_days, tuple(month_firsts(as_of, n_cutoffs)), seed=7)


def demand_history(
    n_products: int = 60,
    n_days: int = 400,
    as_of: date = AS_OF,
    seed: int = 1,
    n_categories: int = 6,
    noise_only: bool = False,
) -> pd.DataFrame:
    """Poisson sales with a weekday pattern and a trend (or pure noise), some known late, some cancelled later."""
    rng = np.random.default_rng(seed)
    days = pd.date_range(end=pd.Timestamp(as_of), periods=n_days, freq="D", unit="s")
    weekday = np.array([0.4, 0.5, 0.7, 1.0, 1.6, 2.0, 0.8])[days.dayofweek]
    trend = np.linspace(0.7, 1.3, n_days)
    parts = []
    for product in range(n_products):
        level = rng.gamma(2.0, 1.2) + 0.2
        mean = np.full(n_days, level) if noise_only else level * weekday * trend
        units = rng.poisson(mean)
        sold = units > 0
        late = np.where(rng.random(sold.sum()) < 0.05, rng.integers(1, 4, sold.sum()), 0)
        part = pd.DataFrame(
            {
                "marketplace": "demo_shop",
                "product_id": f"p{product:04d}",
                "sold_on": days[sold],
                "known_on": days[sold] + pd.to_timedelta(late, unit="D"),
                "category": f"c{product % n_categories}",
                "units_delta": units[sold].astype(float),
                "revenue_delta": units[sold] * (5.0 + product),
            }
        )
        cancelled = part[rng.random(len(part)) < 0.03].copy()
        cancelled["known_on"] += pd.to_timedelta(rng.integers(1, 10, len(cancelled)), unit="D")
        cancelled[["units_delta", "revenue_delta"]] *= -1
        parts += [part, cancelled]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["known_on"] <= pd.Timestamp(as_of)]
    return frame.assign(as_of=pd.Timestamp(as_of).as_unit("s")).reset_index(drop=True)


def shop(
    n_customers: int = 1500, as_of: date = AS_OF, n_days: int = 700, seed: int = 3, n_cutoffs: int = 12
) -> dict[str, pd.DataFrame]:
    """Customers who order at their own rhythm and may leave for good: frames ``behaviour`` and ``orders``."""
    rng = np.random.default_rng(seed)
    first_day = as_of - timedelta(days=n_days)
    rows = []
    for number in range(n_customers):
        gap = rng.choice([7.0, 90.0])
        hazard = 0.04 if gap < 30 else 0.15
        day = rng.uniform(0, n_days)
        while day < n_days:
            rows.append((f"{number:032x}", int(day), rng.lognormal(3, 0.5), rng.random() < 0.04))
            if rng.random() < hazard:
                break
            day += rng.exponential(gap)
    orders = pd.DataFrame(rows, columns=["customer_id", "day", "amount", "is_cancelled"])
    orders = orders.sort_values(["day", "customer_id"], ignore_index=True)
    ordered = pd.Timestamp(first_day).as_unit("s") + pd.to_timedelta(orders["day"] + 1, unit="D")
    versions = pd.DataFrame(
        {
            "marketplace": "demo_shop",
            "order_id": [f"o{i:07d}" for i in range(len(orders))],
            "customer_id": orders["customer_id"],
            "ordered_on": ordered.astype("datetime64[s]"),
            "status": "created",
            "known_at": pd.to_datetime(ordered).dt.tz_localize("UTC") + pd.Timedelta(hours=12),
            "known_on": ordered.astype("datetime64[s]"),
            "amount": orders["amount"],
        }
    )
    cancelled = versions[orders["is_cancelled"]].assign(status="canceled")
    cancelled["known_at"] += pd.Timedelta(days=2)
    cancelled["known_on"] += pd.Timedelta(days=2)
    versions = pd.concat([versions, cancelled], ignore_index=True)
    versions = versions[versions["known_on"] <= pd.Timestamp(as_of)].reset_index(drop=True)
    days = sorted({*month_firsts(as_of, n_cutoffs), as_of})
    behaviour = pd.concat([user_behavior(versions, day) for day in days], ignore_index=True)
    return {"behaviour": behaviour, "orders": versions.drop(columns="amount")}


def user_behavior(versions: pd.DataFrame, cutoff: date) -> pd.DataFrame:
    """The feature view as of a cutoff, from order versions; click-stream and delivery columns are constant."""
    at = pd.Timestamp(cutoff)
    known = versions[versions["known_on"] <= at].sort_values("known_at").drop_duplicates("order_id", keep="last")
    good = known[known["status"] != "canceled"]
    age = (at - good["ordered_on"]).dt.days
    good = good.assign(age=age)
    grouped = good.groupby("customer_id")
    frame = pd.DataFrame(
        {
            "recency_days": grouped["age"].min(),
            "tenure_days": grouped["age"].max(),
            "n_orders": grouped.size(),
            **{f"n_orders_{d}d": good[good["age"] < d].groupby("customer_id").size() for d in (30, 90, 180, 365)},
            "order_amount_total": grouped["amount"].sum(),
            **{f"order_amount_{d}d": good[good["age"] < d].groupby("customer_id")["amount"].sum() for d in (90, 365)},
        }
    ).fillna(0)
    frame["avg_order_amount"] = frame["order_amount_total"] / frame["n_orders"]
    span = frame["tenure_days"] - frame["recency_days"]
    frame["avg_days_between_orders"] = (span / (frame["n_orders"] - 1)).where(frame["n_orders"] > 1)
    frame["n_cancelled"] = (
        known[known["status"] == "canceled"].groupby("customer_id").size().reindex(frame.index).fillna(0)
    )
    constant = {
        "n_categories": 1, "n_marketplaces": 1, "n_items": 1, "avg_delivery_days": 3.0, "n_late_deliveries": 0,
        "n_sessions_30d": 0, "n_sessions_90d": 0, "n_product_views_30d": 0, "n_cart_adds_30d": 0,
        "days_since_last_session": np.nan,
    }  # fmt: skip
    frame = frame.assign(**constant).reset_index()
    frame["last_order_on"] = at.as_unit("s") - pd.to_timedelta(frame["recency_days"], unit="D")
    return frame.assign(as_of=at.as_unit("s"))


def write_lake(history: pd.DataFrame, world: dict[str, pd.DataFrame]) -> None:
    """Put the frames into the lake of the settings, as Spark and the export would."""
    orders = world["orders"].assign(known_month=world["orders"]["known_on"].dt.to_period("M").dt.to_timestamp())
    for parts, frame, column in (
        (("features", "demand_history"), history, "as_of"),
        (("features", "user_behavior"), world["behaviour"], "as_of"),
        (("core", "orders"), orders, "known_month"),
    ):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        for i, field in enumerate(table.schema):
            if field.name in ("as_of", "known_month") or field.name.endswith("_on"):
                table = table.set_column(i, field.name, table.column(i).cast(pa.date32()))
            elif pa.types.is_timestamp(field.type):
                table = table.set_column(i, field.name, table.column(i).cast(pa.timestamp("us", "UTC")))
        values = sorted(set(table.column(column).to_pylist()))
        lake.replace_partition(lake.table_uri(*parts), table, column, values)
