"""Units sold per category and day for the days after the cutoff: P10, P50, P90.

One Prophet model for each of the largest categories; the others get a naive rule, and the table says so.
A model of one series is worth little when its training ended weeks ago, so what is champion is a
configuration: every prediction refits it on the days up to its own cutoff (docs/decisions/0006-model-lifecycle.md).
The models stored with a version are those of its evaluation, kept as evidence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ml_tasks.lifecycle.evaluate import mean_pinball, quantile_metrics
from ml_tasks.lifecycle.gate import NAIVE
from ml_tasks.lifecycle.usecase import Context, Files, Frames, Need, Sample, UseCase
from ml_tasks.series import (
    ACTIVE_DAYS,
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

if TYPE_CHECKING:
    from prophet import Prophet

ENTITY = ("marketplace", "category")
CONFIG = "config.json"
MIN_FIT_DAYS = 84

PARAMS = {
    "n_categories": 12,
    "interval_width": 0.8,
    "uncertainty_samples": 500,
    "weekly_seasonality": True,
    "yearly_seasonality_from_days": 730,
    "candidates": [
        {"seasonality_mode": "additive", "changepoint_prior_scale": 0.05},
        {"seasonality_mode": "multiplicative", "changepoint_prior_scale": 0.05},
    ],
}

RULES = {"seasonal_naive": seasonal_naive, "moving_average_28": moving_average_28}


def needs(ctx: Context) -> list[Need]:
    columns = ("as_of", "marketplace", "sold_on", "known_on", "category", "units_delta", "revenue_delta")
    return [Need("history", ("features", "demand_history"), columns, cutoffs=(ctx.as_of,))]


def _history(frames: Frames, ctx: Context) -> Demand:
    """Deltas per category known as of D. A product without a category counts as 'unknown'."""
    frame = frames["history"]
    frame = frame[(frame["known_on"] <= pd.Timestamp(ctx.as_of)) & (frame["as_of"] == pd.Timestamp(ctx.as_of))]
    keys = [*ENTITY, "sold_on", "known_on"]
    frame = frame.assign(category=frame["category"].fillna("unknown"))
    totals = frame.groupby(keys, sort=True, as_index=False)[["units_delta", "revenue_delta"]].sum()
    return demand(totals, ENTITY)


def build_rows(series: Demand, cutoff: int, horizon_days: int, label_known: int | None = None) -> pd.DataFrame:
    """One row per category with a sale in the last 91 days and day after ``cutoff``."""
    ids = series.eligible(cutoff, min_sale_days=1)
    units = series.window(ids, cutoff - ACTIVE_DAYS + 1, cutoff, known=cutoff)
    h = np.arange(1, horizon_days + 1)
    n = len(ids)
    days = (cutoff + h).astype("datetime64[D]").astype("datetime64[s]")
    rows = series.entities.iloc[np.repeat(ids, horizon_days)].reset_index(drop=True)
    rows["cutoff_on"] = np.datetime64(cutoff, "D").astype("datetime64[s]")
    rows["forecast_on"] = np.tile(days, n)
    rows["mean_28"] = np.repeat(units[:, -28:].mean(axis=1), horizon_days)
    rows["level"] = rows["mean_28"]
    rows["same_weekday_last"] = units[:, -7:][:, (h - 1) % 7].reshape(-1)
    if label_known is not None:
        rows["label"] = series.window(ids, cutoff + 1, cutoff + horizon_days, known=label_known).reshape(-1)
    return rows


def _series(series: Demand, cutoff: int) -> pd.DataFrame:
    """Daily units of every eligible category as known at ``cutoff``, zeros included, from its first sale on."""
    ids = series.eligible(cutoff, min_sale_days=1)
    first = series.first_day
    units = series.window(ids, first, cutoff, known=cutoff)
    n_days = cutoff - first + 1
    frame = series.entities.iloc[np.repeat(ids, n_days)].reset_index(drop=True)
    frame["sold_on"] = np.tile(np.arange(first, cutoff + 1).astype("datetime64[D]").astype("datetime64[s]"), len(ids))
    frame["units"] = units.reshape(-1)
    has_begun = np.cumsum(units, axis=1).reshape(-1) > 0
    return frame[has_begun].reset_index(drop=True)


def _past(series: Demand, cutoff: int, ctx: Context) -> pd.DataFrame:
    cutoffs = weekly_cutoffs(cutoff - ctx.horizon_days, series.first_day)
    kept = [build_rows(series, one, ctx.horizon_days, label_known=cutoff) for one in cutoffs]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()


def evaluation(frames: Frames, ctx: Context) -> Sample | None:
    series = _history(frames, ctx)
    as_of = day_number(ctx.as_of)
    cutoff = as_of - ctx.horizon_days
    if not len(series.sold) or cutoff - series.first_day + 1 < 28:
        return None
    rows = build_rows(series, cutoff, ctx.horizon_days, label_known=as_of)
    return Sample(day_of(cutoff), rows, _past(series, cutoff, ctx), _series(series, cutoff))


def scoring(frames: Frames, ctx: Context, with_past: bool) -> Sample:
    """The past is always built: the naive rule of the small categories is calibrated on it."""
    series = _history(frames, ctx)
    as_of = day_number(ctx.as_of)
    rows = build_rows(series, as_of, ctx.horizon_days)
    return Sample(ctx.as_of, rows, _past(series, as_of, ctx), _series(series, as_of))


def _largest(series: pd.DataFrame, n: int, cutoff: pd.Timestamp) -> list[tuple[str, str]]:
    """The ``n`` categories with the most units in the last 91 days among those with enough days to fit."""
    recent = series[series["sold_on"] > cutoff - pd.Timedelta(days=ACTIVE_DAYS)]
    units = recent.groupby(list(ENTITY))["units"].sum()
    n_days = series.groupby(list(ENTITY)).size()
    units = units[n_days.reindex(units.index) >= MIN_FIT_DAYS]
    return sorted(units.index, key=lambda key: (-units[key], key))[:n]


def _quiet() -> None:
    """Prophet and cmdstanpy log every fit."""
    for name in ("prophet", "prophet.plot", "cmdstanpy"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        logger.handlers = [logging.NullHandler()]


def _fit_one(daily: pd.DataFrame, config: Mapping[str, Any]) -> Prophet:
    from prophet import Prophet

    model = Prophet(
        interval_width=config["interval_width"],
        uncertainty_samples=config["uncertainty_samples"],
        weekly_seasonality=config["weekly_seasonality"],
        yearly_seasonality=len(daily) >= config["yearly_seasonality_from_days"],
        daily_seasonality=False,
        seasonality_mode=config["seasonality_mode"],
        changepoint_prior_scale=config["changepoint_prior_scale"],
    )
    frame = pd.DataFrame({"ds": daily["sold_on"].astype("datetime64[ns]").to_numpy(), "y": daily["units"].to_numpy()})
    return model.fit(frame, seed=config["seed"])


def _forecast(model: Prophet, days: pd.Series, seed: int) -> np.ndarray:
    """(n, 3). Prophet draws its trend uncertainty from numpy's global generator: seed it for each series."""
    np.random.seed(seed)
    said = model.predict(pd.DataFrame({"ds": days.astype("datetime64[ns]").to_numpy()}))
    return said[["yhat_lower", "yhat", "yhat_upper"]].to_numpy()


def _fit_all(series: pd.DataFrame, config: Mapping[str, Any], cutoff: pd.Timestamp) -> dict[tuple[str, str], Prophet]:
    _quiet()
    known = series[series["sold_on"] <= cutoff]
    by_category = dict(list(known.groupby(list(ENTITY))))
    largest = _largest(known, config["n_categories"], cutoff)
    return {key: _fit_one(by_category[key], config) for key in largest}


def _apply(models: Mapping[tuple[str, str], Prophet], rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Quantiles of the rows whose category has a model; the others are missing."""
    out = pd.DataFrame(np.nan, index=rows.index, columns=list(P))
    for key, part in rows.groupby(list(ENTITY)):
        if key in models:
            out.loc[part.index] = quantile_frame(_forecast(models[key], part["forecast_on"], seed), part.index)
    return out


def fit(sample: Sample, ctx: Context) -> Files | None:
    """Choose a configuration on the window before the evaluation cutoff, then fit it up to that cutoff."""
    cutoff = pd.Timestamp(sample.cutoff)
    earlier = cutoff - pd.Timedelta(days=ctx.horizon_days)
    past = sample.past
    if past.empty:
        return None
    validation = past[past["cutoff_on"] == earlier]
    common = {key: value for key, value in PARAMS.items() if key != "candidates"} | {"seed": ctx.seed}
    best: tuple[float, dict[str, Any]] | None = None
    for candidate in PARAMS["candidates"]:
        config = common | candidate
        said = _apply(_fit_all(sample.series, config, earlier), validation, ctx.seed)
        has = said["p50"].notna()
        if not has.any():
            return None
        value = float(loss(validation[has], said[has]).mean())
        if best is None or value < best[0]:
            best = value, config
    assert best is not None
    config = best[1]
    before = past[past["cutoff_on"] < earlier]
    judged = {name: loss(validation, rule(Sample(earlier.date(), validation, before))) for name, rule in RULES.items()}
    config["rest_rule"] = min(sorted(RULES), key=lambda name: float(judged[name].mean()))
    config["fitted_until"] = str(sample.cutoff)

    from prophet.serialize import model_to_json

    files = {}
    names = []
    for i, (key, model) in enumerate(_fit_all(sample.series, config, cutoff).items()):
        files[f"prophet/{i:02d}.json"] = model_to_json(model)
        names.append(list(key))
    return {**files, CONFIG: json.dumps({**config, "categories": names}, sort_keys=True, indent=1)}


def predict(files: Files, sample: Sample) -> pd.DataFrame:
    """Quantiles and ``is_modelled``. The stored models speak at their own cutoff; at any other they are refitted."""
    config = json.loads(files[CONFIG])
    if config["fitted_until"] == str(sample.cutoff):
        _quiet()
        from prophet.serialize import model_from_json

        keys = [tuple(key) for key in config["categories"]]
        models = {key: model_from_json(files[f"prophet/{i:02d}.json"]) for i, key in enumerate(keys)}
    else:
        models = _fit_all(sample.series, config, pd.Timestamp(sample.cutoff))
    said = _apply(models, sample.rows, config["seed"])
    is_modelled = said["p50"].notna()
    said = said.where(is_modelled, RULES[config["rest_rule"]](sample))
    return said.assign(is_modelled=is_modelled, rule=config["rest_rule"])


def loss(rows: pd.DataFrame, predicted: pd.DataFrame) -> np.ndarray:
    return mean_pinball(rows["label"].to_numpy(), predicted[list(P)].to_numpy())


def metrics(rows: pd.DataFrame, predicted: pd.DataFrame) -> dict[str, float]:
    return quantile_metrics(rows["label"].to_numpy(), predicted[list(P)].to_numpy())


def table(sample: Sample, predicted: pd.DataFrame, files: Files | None) -> pd.DataFrame:
    out = pd.concat([sample.rows[[*ENTITY, "forecast_on"]], predicted[list(P)]], axis=1)
    if files is not None:
        out["model_name"] = np.where(predicted["is_modelled"], USE_CASE.model, NAIVE + predicted["rule"])
    return out


USE_CASE = UseCase(
    name="demand_category",
    predicts="units sold per category and day for the 28 days after the business day: 10%, 50% and 90% quantiles.",
    target="demand_forecast_category",
    model="demand_category-prophet",
    version=1,
    entity=ENTITY,
    horizon_setting="forecast_horizon_days",
    metric="pinball",
    outputs=P,
    params=PARAMS,
    limits=(
        "Prophet for the twelve largest categories only; the others get a naive rule, named in model_name.",
        "The version is a configuration: scoring refits it on the days up to the business day.",
        "Few categories make a wide interval: small gains are not promoted.",
        "Intervals are too narrow for categories with few sales a day (Prophet's errors are normal, counts are not).",
        "Category forecasts are made on their own and need not equal the sum of the SKU forecasts.",
    ),
    needs=needs,
    evaluation=evaluation,
    scoring=scoring,
    fit=fit,
    predict=predict,
    baselines=RULES,
    default_baseline="moving_average_28",
    loss=loss,
    metrics=metrics,
    table=table,
    min_entities=5,
)
