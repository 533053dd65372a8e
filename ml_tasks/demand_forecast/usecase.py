"""Units sold per SKU and day for the days after the cutoff: P10, P50, P90.

One LightGBM model per quantile over all SKUs ("global"), direct: the horizon is a feature. The target is
divided by the SKU's own level and rows are weighted by it. Pinball loss is homogeneous,
``L(y, p) = s L(y / s, p / s)``, so this minimises the loss in units and lets slow and fast sellers share trees.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from ml_tasks.lifecycle.evaluate import QUANTILES, mean_pinball, quantile_metrics
from ml_tasks.lifecycle.usecase import THREADS, Context, Files, Frames, Need, Sample, UseCase
from ml_tasks.series import (
    LOOKBACK_DAYS,
    Demand,
    P,
    day_number,
    day_of,
    demand,
    moving_average_28,
    quantile_frame,
    seasonal_naive,
    weekly_cutoffs,
)

ENTITY = ("marketplace", "product_id")

PARAMS = {
    "n_trees": 100,
    "num_leaves": 31,
    "learning_rate": 0.08,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.8,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "max_training_rows": 100_000,
}
TREE_PARAMS = ("num_leaves", "learning_rate", "min_data_in_leaf", "feature_fraction", "lambda_l2", "max_bin")

NUMERIC = (
    "horizon", "weekday", "day_of_month", "month",
    "level", "mean_7_rel", "mean_14_rel", "mean_28_rel", "mean_91_rel", "mean_168_rel", "std_28_rel", "max_28_rel",
    "same_weekday_last_rel", "same_weekday_4_rel", "same_weekday_8_rel", "last_year_rel",
    "share_sale_days_28", "share_sale_days_91", "units_per_sale_day", "days_since_sale", "age_days",
    "trend", "category_trend", "unit_price_amount", "price_ratio",
)  # fmt: skip
CATEGORICAL = ("marketplace", "category")
FEATURES = (*NUMERIC, *CATEGORICAL)


def needs(ctx: Context) -> list[Need]:
    columns = (
        "as_of", "marketplace", "product_id", "sold_on", "known_on", "category", "units_delta", "revenue_delta",
    )  # fmt: skip
    return [Need("history", ("features", "demand_history"), columns, cutoffs=(ctx.as_of,))]


def _history(frames: Frames, ctx: Context) -> tuple[Demand, np.ndarray]:
    """Deltas known as of D, and each SKU's category: the one of its newest row."""
    frame = frames["history"]
    frame = frame[frame["known_on"] <= pd.Timestamp(ctx.as_of)]
    frame = frame[frame["as_of"] == pd.Timestamp(ctx.as_of)] if "as_of" in frame else frame
    frame = frame.assign(category=frame["category"].fillna("unknown"))
    series = demand(frame, ENTITY)
    newest = frame.sort_values([*ENTITY, "known_on", "sold_on", "category"], kind="stable")
    category = newest.groupby(list(ENTITY), sort=True)["category"].last().to_numpy()
    return series, category


def sku_features(series: Demand, category: np.ndarray, cutoff: int) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """What is known of each eligible SKU at ``cutoff``: (ids, one row per SKU, same-weekday values (n, 3, 7)).

    The last axis of the third is the weekday of horizon 1..7; the middle one: last week, mean of 4, of 8 weeks.
    """
    ids = series.eligible(cutoff)
    units = series.window(ids, cutoff - LOOKBACK_DAYS + 1, cutoff, known=cutoff)
    recent = cutoff - 90
    revenue = series.window(ids, recent, cutoff, known=cutoff, what="revenue")
    sold = units > 0

    def mean(days: int) -> np.ndarray:
        return units[:, -days:].mean(axis=1)

    def price(days: int) -> np.ndarray:
        volume = units[:, -days:].sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(volume > 0, revenue[:, -days:].sum(axis=1) / volume, np.nan)

    # A floor keeps the ratio of a SKU that hardly sells from exploding.
    level = np.maximum(0.5 * mean(28) + 0.5 * mean(91), 0.02)
    weeks = units[:, -56:].reshape(len(ids), 8, 7)
    weekday = np.stack([weeks[:, 7], weeks[:, 4:].mean(axis=1), weeks.mean(axis=1)], axis=1)
    last_sale = LOOKBACK_DAYS - 1 - np.argmax(sold[:, ::-1], axis=1) if len(ids) else np.zeros(0)
    first_sale = np.argmax(sold, axis=1) if len(ids) else np.zeros(0)
    n_sales = np.maximum(sold.sum(axis=1), 1)
    price_91 = price(91)
    frame = pd.DataFrame(
        {
            "marketplace": series.entities["marketplace"].to_numpy()[ids],
            "product_id": series.entities["product_id"].to_numpy()[ids],
            "category": category[ids],
            "level": level,
            "mean_28": mean(28),
            **{f"mean_{days}_rel": mean(days) / level for days in (7, 14, 28, 91, 168)},
            "std_28_rel": units[:, -28:].std(axis=1) / level,
            "max_28_rel": units[:, -28:].max(axis=1) / level,
            "share_sale_days_28": sold[:, -28:].mean(axis=1),
            "share_sale_days_91": sold[:, -91:].mean(axis=1),
            "units_per_sale_day": units.sum(axis=1) / n_sales,
            "days_since_sale": LOOKBACK_DAYS - 1.0 - last_sale,
            "age_days": LOOKBACK_DAYS - 1.0 - first_sale,
            "trend": mean(28) / np.maximum(units[:, -56:-28].mean(axis=1), 0.02),
            "unit_price_amount": price_91,
            "price_ratio": price(28) / price_91,
        }
    )
    by_category = pd.DataFrame({"category": frame["category"], "now": mean(28), "before": mean(91)})
    totals = by_category.groupby("category")[["now", "before"]].transform("sum")
    frame["category_trend"] = (totals["now"] / totals["before"].clip(lower=0.02)).to_numpy()
    return ids, frame, weekday


def build_rows(
    series: Demand, category: np.ndarray, cutoff: int, horizon_days: int, label_known: int | None = None
) -> pd.DataFrame:
    """One row per eligible SKU and day after ``cutoff``: what was known then, ``label`` as known at ``label_known``."""
    ids, skus, weekday = sku_features(series, category, cutoff)
    n, h = len(ids), np.arange(1, horizon_days + 1)
    rows = skus.loc[np.repeat(np.arange(n), horizon_days)].reset_index(drop=True)
    target = cutoff + h
    dates = pd.DatetimeIndex(target.astype("datetime64[D]"))
    level = rows["level"].to_numpy()
    rows["cutoff_on"] = np.datetime64(cutoff, "D").astype("datetime64[s]")
    rows["forecast_on"] = np.tile(dates.to_numpy().astype("datetime64[s]"), n)
    rows["horizon"] = np.tile(h, n).astype(float)
    rows["weekday"] = np.tile(dates.dayofweek.to_numpy(), n).astype(float)
    rows["day_of_month"] = np.tile(dates.day.to_numpy(), n).astype(float)
    rows["month"] = np.tile(dates.month.to_numpy(), n).astype(float)
    for i, name in enumerate(("same_weekday_last", "same_weekday_4", "same_weekday_8")):
        rows[name] = weekday[:, i, :][:, (h - 1) % 7].reshape(-1)
        rows[f"{name}_rel"] = rows[name] / level
    rows["last_year_rel"] = _last_year(series, ids, cutoff, horizon_days).reshape(-1) / level
    if label_known is not None:
        rows["label"] = series.window(ids, cutoff + 1, cutoff + horizon_days, known=label_known).reshape(-1)
    return rows


def _last_year(series: Demand, ids: np.ndarray, cutoff: int, horizon_days: int) -> np.ndarray:
    """Mean of the week around the day 52 weeks before the target, (n, horizon); NaN before the history begins."""
    first = cutoff + 1 - 364 - 3
    units = series.window(ids, first, first + horizon_days + 5, known=cutoff)
    sums = np.cumsum(np.pad(units, ((0, 0), (1, 0))), axis=1)
    week = (sums[:, 7:] - sums[:, :-7]) / 7
    week[:, : max(0, series.first_day - first)] = np.nan
    return week


def _past(series: Demand, category: np.ndarray, cutoff: int, ctx: Context) -> pd.DataFrame:
    """Labelled rows of weekly cutoffs whose horizon ended by ``cutoff``, labels as known at it.

    Beyond ``max_training_rows`` an evenly spread, seeded share of the rows is kept.
    """
    cutoffs = weekly_cutoffs(cutoff - ctx.horizon_days, series.first_day)
    if not cutoffs:
        return pd.DataFrame()
    per_cutoff = -(-PARAMS["max_training_rows"] // len(cutoffs))
    rng = np.random.default_rng(ctx.seed)
    kept = []
    for one in cutoffs:
        rows = build_rows(series, category, one, ctx.horizon_days, label_known=cutoff)
        if len(rows) > per_cutoff:
            rows = rows.iloc[np.sort(rng.choice(len(rows), per_cutoff, replace=False))]
        kept.append(rows)
    return pd.concat(kept, ignore_index=True)


def evaluation(frames: Frames, ctx: Context) -> Sample | None:
    series, category = _history(frames, ctx)
    as_of = day_number(ctx.as_of)
    cutoff = as_of - ctx.horizon_days
    if not len(series.sold) or cutoff - series.first_day + 1 < 28:
        return None
    rows = build_rows(series, category, cutoff, ctx.horizon_days, label_known=as_of)
    return Sample(day_of(cutoff), rows, _past(series, category, cutoff, ctx))


def scoring(frames: Frames, ctx: Context, with_past: bool) -> Sample:
    series, category = _history(frames, ctx)
    as_of = day_number(ctx.as_of)
    rows = build_rows(series, category, as_of, ctx.horizon_days)
    past = _past(series, category, as_of, ctx) if with_past else pd.DataFrame()
    return Sample(ctx.as_of, rows, past)


def _matrix(rows: pd.DataFrame, features: list[str], codes: dict[str, dict[str, int]]) -> np.ndarray:
    """(n, n_features) float64; categories the model never saw are missing values."""
    columns = [
        rows[name].map(codes[name]).to_numpy(float) if name in codes else rows[name].to_numpy(float)
        for name in features
    ]
    return np.column_stack(columns) if len(rows) else np.empty((0, len(features)))


def fit(sample: Sample, ctx: Context) -> Files | None:
    past = sample.past
    if len(past) < 2_000 or past["label"].sum() <= 0:
        return None
    import lightgbm as lgb

    # A feature that most training rows lack would be learned from the few that have it.
    features = [name for name in FEATURES if name in CATEGORICAL or past[name].notna().mean() >= 0.5]
    codes = {name: {value: i for i, value in enumerate(sorted(past[name].unique()))} for name in CATEGORICAL}
    level = past["level"].to_numpy()
    common = {name: PARAMS[name] for name in TREE_PARAMS} | {
        "seed": ctx.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": THREADS,
        "verbosity": -1,
    }
    data = lgb.Dataset(
        _matrix(past, features, codes),
        label=past["label"].to_numpy() / level,
        weight=level / level.mean(),
        feature_name=features,
        categorical_feature=list(CATEGORICAL),
        params=common,
        free_raw_data=False,
    )
    files = {"encoding.json": json.dumps(codes, sort_keys=True)}
    for name, quantile in zip(P, QUANTILES, strict=True):
        params = common | {"objective": "quantile", "alpha": quantile}
        files[f"{name}.txt"] = lgb.train(params, data, num_boost_round=PARAMS["n_trees"]).model_to_string()
    return files


def predict(files: Files, sample: Sample) -> pd.DataFrame:
    import lightgbm as lgb

    codes = json.loads(files["encoding.json"])
    rows = sample.rows
    matrix, out = None, []
    for name in P:
        booster = lgb.Booster(model_str=files[f"{name}.txt"])
        if matrix is None:
            matrix = _matrix(rows, booster.feature_name(), codes)
        out.append(booster.predict(matrix, num_threads=THREADS) if len(rows) else np.empty(0))
    return quantile_frame(np.column_stack(out) * rows["level"].to_numpy()[:, None], rows.index)


def loss(rows: pd.DataFrame, predicted: pd.DataFrame) -> np.ndarray:
    return mean_pinball(rows["label"].to_numpy(), predicted[list(P)].to_numpy())


def metrics(rows: pd.DataFrame, predicted: pd.DataFrame) -> dict[str, float]:
    return quantile_metrics(rows["label"].to_numpy(), predicted[list(P)].to_numpy())


def table(sample: Sample, predicted: pd.DataFrame, files: Files | None) -> pd.DataFrame:
    return pd.concat([sample.rows[[*ENTITY, "forecast_on"]], predicted[list(P)]], axis=1)


def picture(rows: pd.DataFrame, predicted: pd.DataFrame, files: Files) -> bytes | None:
    import lightgbm as lgb

    from ml_tasks.lifecycle.card import importance_and_days

    booster = lgb.Booster(model_str=files["p50.txt"])
    gain = dict(zip(booster.feature_name(), booster.feature_importance("gain"), strict=True))
    return importance_and_days(gain, rows, predicted)


USE_CASE = UseCase(
    name="demand_forecast",
    predicts="units sold per SKU and day for the 28 days after the business day: 10%, 50% and 90% quantiles.",
    target="demand_forecast",
    model="demand_forecast-lightgbm",
    version=1,
    entity=ENTITY,
    horizon_setting="forecast_horizon_days",
    metric="pinball",
    outputs=P,
    params=PARAMS,
    limits=(
        "Sales, not demand: a day out of stock counts as no demand.",
        "Only SKUs that sold in the last 91 days, on at least 3 days of the last 168. New SKUs get no forecast.",
        "Promotions and price changes after the business day are unknown to the model.",
        "With one year of history or less, yearly seasons cannot be learned.",
        "Quantiles of single days must not be added up to quantiles of weeks or of categories.",
    ),
    needs=needs,
    evaluation=evaluation,
    scoring=scoring,
    fit=fit,
    predict=predict,
    baselines={"seasonal_naive": seasonal_naive, "moving_average_28": moving_average_28},
    default_baseline="moving_average_28",
    loss=loss,
    metrics=metrics,
    table=table,
    features=FEATURES,
    picture=picture,
)
