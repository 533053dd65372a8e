"""Probability that an eligible customer places no order in the horizon after the cutoff.

Eligible: at least one non-cancelled order in the last 365 days, as known at the cutoff. LightGBM on the
feature view user_behavior at month-first cutoffs, its log odds calibrated (Platt, 1999) on the newest
training cutoff, on customers that the trees never saw.
"""

from __future__ import annotations

import json
import zlib
from datetime import date, timedelta

import numpy as np
import pandas as pd

from ml_tasks.lifecycle.evaluate import log_loss, probability_metrics
from ml_tasks.lifecycle.explain import contributions, top_reasons
from ml_tasks.lifecycle.usecase import THREADS, Context, Files, Frames, Need, Sample, UseCase

NOT_AN_ORDER = ("canceled", "unavailable")
ELIGIBLE_DAYS = 365

PARAMS = {
    "n_trees": 120,
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "lambda_l2": 5.0,
    "max_training_rows": 150_000,
    "calibration_share": 0.3,
}
TREE_PARAMS = ("num_leaves", "learning_rate", "min_data_in_leaf", "feature_fraction", "lambda_l2")

FEATURES = (
    "recency_days", "tenure_days", "n_orders", "n_orders_30d", "n_orders_90d", "n_orders_180d", "n_orders_365d",
    "order_amount_total", "order_amount_90d", "order_amount_365d", "avg_order_amount", "avg_days_between_orders",
    "n_cancelled", "n_categories", "n_marketplaces", "n_items", "avg_delivery_days", "n_late_deliveries",
    "n_sessions_30d", "n_sessions_90d", "n_product_views_30d", "n_cart_adds_30d", "days_since_last_session",
    "recency_ratio",
)  # fmt: skip
"""Columns of user_behavior, and recency_ratio = recency_days / avg_days_between_orders."""


def needs(ctx: Context) -> list[Need]:
    behaviour = ("as_of", "customer_id", *[name for name in FEATURES if name != "recency_ratio"])
    orders = ("marketplace", "order_id", "customer_id", "ordered_on", "status", "known_at", "known_on")
    return [
        Need("behaviour", ("features", "user_behavior"), behaviour, cutoffs=ctx.cutoffs),
        Need("orders", ("core", "orders"), orders),
    ]


def orders_known(orders: pd.DataFrame, by: date) -> pd.DataFrame:
    """Customer and day of every order as it was known on ``by``; cancelled ones are none."""
    known = orders[orders["known_on"] <= pd.Timestamp(by)]
    known = known.sort_values(["marketplace", "order_id", "known_at", "known_on"], kind="stable")
    newest = known.drop_duplicates(["marketplace", "order_id"], keep="last")
    newest = newest[~newest["status"].isin(NOT_AN_ORDER) & newest["customer_id"].notna()]
    return newest[["customer_id", "ordered_on"]]


def build_labels(
    orders: pd.DataFrame, customers: pd.Series, cutoff: date, horizon_days: int, known_by: date
) -> np.ndarray:
    """1.0 for customers without an order in (cutoff, cutoff + horizon], as known on ``known_by``; else 0.0."""
    known = orders_known(orders, known_by)
    first, last = pd.Timestamp(cutoff), pd.Timestamp(cutoff + timedelta(days=horizon_days))
    ordered = known.loc[(known["ordered_on"] > first) & (known["ordered_on"] <= last), "customer_id"].unique()
    return (~customers.isin(ordered)).to_numpy(float)


def _eligible(behaviour: pd.DataFrame, cutoff: date) -> pd.DataFrame:
    """Rows of one cutoff to predict, sorted by customer, with the derived feature."""
    rows = behaviour[(behaviour["as_of"] == pd.Timestamp(cutoff)) & (behaviour["n_orders_365d"] >= 1)]
    rows = rows.sort_values("customer_id", kind="stable", ignore_index=True)
    numeric = [name for name in FEATURES if name != "recency_ratio"]
    rows = rows.astype(dict.fromkeys(numeric, float)).rename(columns={"as_of": "cutoff_on"})
    gap = rows["avg_days_between_orders"].clip(lower=1.0)
    return rows.assign(recency_ratio=rows["recency_days"] / gap)[["customer_id", "cutoff_on", *FEATURES]]


def _past(frames: Frames, cutoff: date, ctx: Context) -> pd.DataFrame:
    """Labelled rows of the cutoffs whose horizon ended by ``cutoff``, labels as known at it."""
    kept = []
    for one in ctx.cutoffs:
        if one + timedelta(days=ctx.horizon_days) <= cutoff:
            rows = _eligible(frames["behaviour"], one)
            if len(rows):
                label = build_labels(frames["orders"], rows["customer_id"], one, ctx.horizon_days, cutoff)
                kept.append(rows.assign(label=label))
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def evaluation(frames: Frames, ctx: Context) -> Sample | None:
    """The newest cutoff whose horizon has ended by D."""
    over = [one for one in ctx.cutoffs if one + timedelta(days=ctx.horizon_days) <= ctx.as_of]
    over = [one for one in over if (frames["behaviour"]["as_of"] == pd.Timestamp(one)).any()]
    if not over:
        return None
    cutoff = over[-1]
    rows = _eligible(frames["behaviour"], cutoff)
    label = build_labels(frames["orders"], rows["customer_id"], cutoff, ctx.horizon_days, ctx.as_of)
    return Sample(cutoff, rows.assign(label=label), _past(frames, cutoff, ctx))


def scoring(frames: Frames, ctx: Context, with_past: bool) -> Sample:
    rows = _eligible(frames["behaviour"], ctx.as_of)
    return Sample(ctx.as_of, rows, _past(frames, ctx.as_of, ctx) if with_past else pd.DataFrame())


def held_out(customers: pd.Series, share: float) -> np.ndarray:
    """Which customers calibrate instead of train: a fixed pseudo-random share, the same on every day."""
    return np.array([zlib.crc32(one.encode()) % 1000 for one in customers]) < share * 1000


def fit(sample: Sample, ctx: Context) -> Files | None:
    past = sample.past
    if past.empty or past["cutoff_on"].nunique() < 2:
        return None
    newest = (past["cutoff_on"] == past["cutoff_on"].max()).to_numpy()
    apart = held_out(past["customer_id"], PARAMS["calibration_share"])
    training, calibration = past[~newest & ~apart], past[newest & apart]
    if len(training) > PARAMS["max_training_rows"]:
        chosen = np.random.default_rng(ctx.seed).choice(len(training), PARAMS["max_training_rows"], replace=False)
        training = training.iloc[np.sort(chosen)]
    if len(training) < 500 or len(calibration) < 100 or training["label"].nunique() < 2:
        return None
    import lightgbm as lgb

    params = {name: PARAMS[name] for name in TREE_PARAMS} | {
        "objective": "binary",
        "seed": ctx.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": THREADS,
        "verbosity": -1,
    }
    data = lgb.Dataset(
        training[list(FEATURES)].to_numpy(float), training["label"].to_numpy(), feature_name=list(FEATURES)
    )
    booster = lgb.train(params, data, num_boost_round=PARAMS["n_trees"])
    log_odds = booster.predict(calibration[list(FEATURES)].to_numpy(float), raw_score=True)
    slope, intercept = platt(log_odds, calibration["label"].to_numpy())
    return {
        "model.txt": booster.model_to_string(),
        "calibration.json": json.dumps(
            {"method": "platt", "slope": slope, "intercept": intercept, "n_rows": len(calibration)}, sort_keys=True
        ),
    }


def platt(log_odds: np.ndarray, label: np.ndarray, n_steps: int = 50) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of ``label`` on ``log_odds`` (Platt, 1999), by Newton steps.

    Targets are shrunk as in his paper, so a slice with one class alone still has a finite answer. A slope
    that is not positive would turn the ranking around; then only the intercept is fitted.
    """
    n_positive = label.sum()
    n_negative = len(label) - n_positive
    target = np.where(label == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def newton(design: np.ndarray, offset: np.ndarray, beta: np.ndarray) -> np.ndarray:
        def nll(at: np.ndarray) -> float:
            z = design @ at + offset
            return float(np.sum(np.logaddexp(0, z) - target * z))

        for _ in range(n_steps):
            p = 1 / (1 + np.exp(-np.clip(design @ beta + offset, -30, 30)))
            hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(design.shape[1])
            move = np.linalg.solve(hessian, design.T @ (target - p))
            # Far from the optimum a full step overshoots and never comes back: halve it until it helps.
            here = nll(beta)
            while nll(beta + move) > here and np.abs(move).max() > 1e-10:
                move = move / 2
            beta = beta + move
            if np.abs(move).max() < 1e-9:
                break
        return beta

    ones = np.ones_like(log_odds)
    slope, intercept = newton(np.column_stack([log_odds, ones]), 0 * ones, np.array([1.0, 0.0]))
    if slope <= 0:
        slope, intercept = 1.0, newton(ones[:, None], log_odds, np.array([0.0]))[0]
    return float(slope), float(intercept)


def predict(files: Files, sample: Sample) -> pd.DataFrame:
    import lightgbm as lgb

    booster = lgb.Booster(model_str=files["model.txt"])
    calibration = json.loads(files["calibration.json"])
    rows = sample.rows
    matrix = rows[booster.feature_name()].to_numpy(float)
    log_odds = booster.predict(matrix, raw_score=True, num_threads=THREADS) if len(rows) else np.empty(0)
    score = calibration["slope"] * log_odds + calibration["intercept"]
    return pd.DataFrame({"churn_probability": 1 / (1 + np.exp(-score))}, index=rows.index)


def base_rate(sample: Sample) -> pd.DataFrame:
    """Everyone gets the share of past customers that did not order (0.5 without any past)."""
    past = sample.past
    rate = (past["label"].sum() + 1) / (len(past) + 2) if len(past) else 0.5
    return pd.DataFrame({"churn_probability": np.full(len(sample.rows), rate)}, index=sample.rows.index)


RECENCY_BUCKETS = np.array([7, 14, 30, 60, 90, 120, 180, 270])


def recency_rate(sample: Sample) -> pd.DataFrame:
    """The share of past customers of the same recency bucket, shrunk toward the base rate by 20 customers."""
    past = sample.past
    overall = base_rate(sample)["churn_probability"].to_numpy()
    if past.empty:
        return pd.DataFrame({"churn_probability": overall}, index=sample.rows.index)
    bucket = np.digitize(past["recency_days"], RECENCY_BUCKETS)
    n = np.bincount(bucket, minlength=len(RECENCY_BUCKETS) + 1)
    churned = np.bincount(bucket, weights=past["label"], minlength=len(RECENCY_BUCKETS) + 1)
    rate = (churned + 20 * overall[:1].sum()) / (n + 20)
    own = rate[np.digitize(sample.rows["recency_days"], RECENCY_BUCKETS)]
    return pd.DataFrame({"churn_probability": own}, index=sample.rows.index)


def loss(rows: pd.DataFrame, predicted: pd.DataFrame) -> np.ndarray:
    return log_loss(rows["label"].to_numpy(), predicted["churn_probability"].to_numpy())


def metrics(rows: pd.DataFrame, predicted: pd.DataFrame) -> dict[str, float]:
    return probability_metrics(rows["label"].to_numpy(), predicted["churn_probability"].to_numpy())


def deciles(probability: np.ndarray, customers: pd.Series) -> np.ndarray:
    """1 = the tenth most at risk, 10 = the least. Equal probabilities go by customer_id."""
    order = np.lexsort((customers.to_numpy().astype(str), -probability))
    decile = np.empty(len(order), dtype="int16")
    decile[order] = np.arange(len(order)) * 10 // max(len(order), 1) + 1
    return decile


def table(sample: Sample, predicted: pd.DataFrame, files: Files | None) -> pd.DataFrame:
    rows, probability = sample.rows, predicted["churn_probability"].to_numpy()
    out = pd.DataFrame({"customer_id": rows["customer_id"], "churn_probability": probability})
    out["decile"] = deciles(probability, rows["customer_id"])
    if files is None:
        reasons = [
            [DESCRIBE["recency_days"](value) for value in rows["recency_days"]],
            [None] * len(rows),
            [None] * len(rows),
        ]
    else:
        reasons = _reasons(files, rows)
    for i, column in enumerate(reasons, start=1):
        out[f"reason_{i}"] = column
    return out


def _reasons(files: Files, rows: pd.DataFrame) -> list[list[str | None]]:
    import lightgbm as lgb

    if rows.empty:
        return [[], [], []]
    booster = lgb.Booster(model_str=files["model.txt"])
    names = booster.feature_name()
    return top_reasons(rows[names].to_numpy(float), contributions(booster, rows), names, DESCRIBE)


def _count(what: str, period: str = "", none: str = "no"):
    singular = what.removesuffix("s") if not what.endswith("deliveries") else what.replace("deliveries", "delivery")

    def text(value: float) -> str:
        if np.isnan(value):
            return f"{what}{period} unknown"
        number = round(value)
        return f"{number or none} {singular if number == 1 else what}{period}"

    return text


def _days(text: str, missing: str):
    def describe(value: float) -> str:
        if np.isnan(value):
            return missing
        number = round(value)
        return text.format(f"{number} day{'' if number == 1 else 's'}")

    return describe


def _amount(text: str):
    return lambda value: text.format("an unknown amount" if np.isnan(value) else f"{value:,.2f}")


DESCRIBE = {
    "recency_days": _days("no order for {}", "no order yet"),
    "tenure_days": _days("customer for {}", "first order unknown"),
    "n_orders": _count("orders", " ever"),
    "n_orders_30d": _count("orders", " in the last 30 days"),
    "n_orders_90d": _count("orders", " in the last 90 days"),
    "n_orders_180d": _count("orders", " in the last 180 days"),
    "n_orders_365d": _count("orders", " in the last 365 days"),
    "order_amount_total": _amount("ordered for {} in total"),
    "order_amount_90d": _amount("ordered for {} in the last 90 days"),
    "order_amount_365d": _amount("ordered for {} in the last 365 days"),
    "avg_order_amount": _amount("an average order is worth {}"),
    "avg_days_between_orders": _days("orders every {} on average", "only one order so far"),
    "n_cancelled": _count("cancelled orders"),
    "n_categories": _count("categories", " bought from"),
    "n_marketplaces": _count("marketplaces", " used"),
    "n_items": _count("items", " bought"),
    "avg_delivery_days": _days("deliveries took {} on average", "no delivery yet"),
    "n_late_deliveries": _count("late deliveries"),
    "n_sessions_30d": _count("visits", " in the last 30 days"),
    "n_sessions_90d": _count("visits", " in the last 90 days"),
    "n_product_views_30d": _count("product views", " in the last 30 days"),
    "n_cart_adds_30d": _count("cart additions", " in the last 30 days"),
    "days_since_last_session": _days("no visit for {}", "no visit seen"),
    "recency_ratio": lambda value: (
        "no rhythm of orders yet" if np.isnan(value) else f"silent for {value:.1f} times the usual gap between orders"
    ),
}
"""A sentence per feature with the customer's own value."""


def picture(rows: pd.DataFrame, predicted: pd.DataFrame, files: Files) -> bytes | None:
    import lightgbm as lgb

    from ml_tasks.lifecycle.card import importance_and_calibration

    booster = lgb.Booster(model_str=files["model.txt"])
    gain = dict(zip(booster.feature_name(), booster.feature_importance("gain"), strict=True))
    return importance_and_calibration(gain, rows["label"].to_numpy(), predicted["churn_probability"].to_numpy())


USE_CASE = UseCase(
    name="churn",
    predicts="the probability that a customer places no order in the 90 days after the business day.",
    target="churn_score",
    model="churn-lightgbm",
    version=1,
    entity=("customer_id",),
    horizon_setting="churn_horizon_days",
    metric="log_loss",
    outputs=("churn_probability",),
    params=PARAMS,
    limits=(
        "Only customers with a non-cancelled order in the last 365 days; the others get no score.",
        "A guest without a customer id is not a customer here.",
        "It predicts silence, not its cause, and not whether an offer would change anything.",
        "Reasons are contributions to this model's score (TreeSHAP), not causes.",
        "The newest evaluation window is up to four months old, because labels take the whole horizon to be known.",
    ),
    needs=needs,
    evaluation=evaluation,
    scoring=scoring,
    fit=fit,
    predict=predict,
    baselines={"base_rate": base_rate, "recency_rate": recency_rate},
    default_baseline="recency_rate",
    loss=loss,
    metrics=metrics,
    table=table,
    features=FEATURES,
    picture=picture,
)
