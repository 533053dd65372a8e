"""Each use case on a simulated world: what it may see, that it learns what is there, that it repeats itself."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from ml_tasks import use_case, use_case_names
from ml_tasks.churn import usecase as churn
from ml_tasks.demand_forecast import usecase as forecast
from ml_tasks.lifecycle.evaluate import clusters
from ml_tasks.lifecycle.gate import decide
from ml_tasks.lifecycle.usecase import Sample
from tests.unit.ml_tasks import simulate

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def worlds():
    history = {"history": simulate.demand_history(40)}
    return {"demand_forecast": history, "demand_category": history, "churn": simulate.shop(2500)}


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Fewer rows and trees than in production: seconds, and the planted pattern is still there to find."""
    before = dict(forecast.PARAMS)
    forecast.PARAMS |= {"n_trees": 40, "max_training_rows": 12_000}
    yield
    forecast.PARAMS |= before


@pytest.fixture(scope="module")
def fitted(worlds):
    out = {}
    for name in use_case_names():
        ctx = simulate.context(simulate.HORIZON_DAYS[name])
        sample = use_case(name).evaluation(worlds[name], ctx)
        out[name] = sample, use_case(name).fit(sample, ctx)
    return out


@pytest.mark.parametrize("name", use_case_names())
def test_no_training_label_reaches_into_the_evaluation_window(name, fitted):
    sample, _ = fitted[name]
    last = sample.past["cutoff_on"].max() + pd.Timedelta(days=simulate.HORIZON_DAYS[name])
    assert last <= pd.Timestamp(sample.cutoff)
    assert sample.cutoff + timedelta(days=simulate.HORIZON_DAYS[name]) <= simulate.AS_OF
    assert sample.past["cutoff_on"].nunique() >= 4


@pytest.mark.parametrize("name", use_case_names())
def test_what_happens_after_the_cutoff_changes_nothing_that_is_learned(name, worlds, fitted):
    """Rewrite everything known after the evaluation cutoff: training rows and features stay as they were."""
    sample, _ = fitted[name]
    at = pd.Timestamp(sample.cutoff)
    world = {key: frame.copy() for key, frame in worlds[name].items()}
    if name == "churn":
        later = world["orders"]["known_on"] > at
        world["orders"].loc[later, "customer_id"] = world["orders"]["customer_id"].iloc[0]
        behaviour = world["behaviour"]
        behaviour.loc[behaviour["as_of"] > at, "recency_days"] = 999
    else:
        later = world["history"]["known_on"] > at
        world["history"].loc[later, "units_delta"] *= 50
    assert later.any()
    changed = use_case(name).evaluation(world, simulate.context(simulate.HORIZON_DAYS[name]))
    pd.testing.assert_frame_equal(changed.past, sample.past)
    pd.testing.assert_frame_equal(changed.rows.drop(columns="label"), sample.rows.drop(columns="label"))
    assert not changed.rows["label"].equals(sample.rows["label"])


@pytest.mark.parametrize("name", use_case_names())
def test_rows_known_after_the_day_change_nothing_at_all(name, worlds):
    ctx = simulate.context(simulate.HORIZON_DAYS[name], as_of=date(2025, 12, 20))
    at = pd.Timestamp(ctx.as_of)
    if name == "churn":
        full = worlds[name]
        cut = {
            "orders": full["orders"][full["orders"]["known_on"] <= at],
            "behaviour": full["behaviour"][full["behaviour"]["as_of"] <= at],
        }
    else:
        full = {"history": worlds[name]["history"].assign(as_of=at)}
        cut = {"history": full["history"][full["history"]["known_on"] <= at]}
    a, b = use_case(name).evaluation(full, ctx), use_case(name).evaluation(cut, ctx)
    pd.testing.assert_frame_equal(a.rows, b.rows)
    pd.testing.assert_frame_equal(a.past, b.past)


@pytest.mark.parametrize("name", use_case_names())
def test_fit_never_looks_at_the_evaluation_labels(name, fitted):
    sample, files = fitted[name]
    blind = Sample(sample.cutoff, sample.rows.assign(label=np.nan), sample.past, sample.series)
    assert use_case(name).fit(blind, simulate.context(simulate.HORIZON_DAYS[name])) == files


@pytest.mark.parametrize("name", use_case_names())
def test_model_files_are_text_and_predict_the_same_again(name, fitted):
    sample, files = fitted[name]
    assert all(isinstance(text, str) for text in files.values())
    first, second = (use_case(name).predict(dict(files), sample) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("name", use_case_names())
def test_model_finds_the_planted_pattern_and_beats_every_naive_rule(name, fitted):
    case, (sample, files) = use_case(name), fitted[name]
    losses = {rule: case.loss(sample.rows, said(sample)) for rule, said in case.baselines.items()}
    challenger = case.loss(sample.rows, case.predict(files, sample))
    cluster = clusters(sample.rows, case.entity)
    verdict = decide(losses, challenger, None, None, cluster, 1, case.min_entities)
    assert verdict.champion == "challenger", verdict.reason


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_noise_leaves_a_model_hardly_anything_to_gain_on_the_moving_average(seed):
    """Hardly, not nothing: a longer mean than 28 days is a little better where every day is alike."""
    case, ctx = use_case("demand_forecast"), simulate.context(28)
    sample = case.evaluation({"history": simulate.demand_history(40, noise_only=True, seed=seed)}, ctx)
    files = case.fit(sample, ctx)
    losses = {rule: case.loss(sample.rows, said(sample)) for rule, said in case.baselines.items()}
    average = losses["moving_average_28"].mean()
    assert average < losses["seasonal_naive"].mean()
    assert np.mean(case.loss(sample.rows, case.predict(files, sample))) == pytest.approx(average, rel=0.05)


@pytest.mark.parametrize("name", ["demand_forecast", "demand_category"])
def test_quantiles_are_ordered_and_never_negative(name, worlds, fitted):
    case, ctx = use_case(name), simulate.context(28)
    _, files = fitted[name]
    sample = case.scoring(worlds[name], ctx, True)
    frames = [case.predict(files, sample), *[rule(sample) for rule in case.baselines.values()]]
    for said in frames:
        assert (said["p10"] >= 0).all()
        assert (said["p10"] <= said["p50"]).all()
        assert (said["p50"] <= said["p90"]).all()
        assert np.isfinite(said[["p10", "p50", "p90"]].to_numpy()).all()
    table = case.table(sample, frames[0], files)
    days = table.groupby(list(case.entity))["forecast_on"].agg(["min", "max", "nunique"])
    assert (days["nunique"] == 28).all()
    assert (days["min"] == pd.Timestamp(simulate.AS_OF) + pd.Timedelta(days=1)).all()
    assert (days["max"] == pd.Timestamp(simulate.AS_OF) + pd.Timedelta(days=28)).all()


def test_small_categories_get_the_naive_rule_and_the_table_says_so(worlds, monkeypatch):
    from ml_tasks.demand_category import usecase as category

    monkeypatch.setitem(category.PARAMS, "n_categories", 2)
    monkeypatch.setitem(category.PARAMS, "candidates", category.PARAMS["candidates"][:1])
    ctx = simulate.context(28)
    files = category.fit(category.evaluation(worlds["demand_category"], ctx), ctx)
    sample = category.scoring(worlds["demand_category"], ctx, False)
    table = category.table(sample, category.predict(files, sample), files)
    names = table.groupby("category")["model_name"].unique().map(list)
    assert sorted(name for (name,) in names)[:2] == ["demand_category-prophet"] * 2
    assert sum(name.startswith("naive:") for (name,) in names) == 4
    assert len(json.loads(files["config.json"])["categories"]) == 2


def test_customers_that_calibrate_never_train(fitted):
    sample, files = fitted["churn"]
    apart = churn.held_out(sample.past["customer_id"], 0.3)
    newest = sample.past["cutoff_on"] == sample.past["cutoff_on"].max()
    assert json.loads(files["calibration.json"])["n_rows"] == (newest & apart).sum()
    changed = sample.past.copy()
    changed.loc[apart, "label"] = 1 - changed.loc[apart, "label"]
    other = churn.fit(Sample(sample.cutoff, sample.rows, changed), simulate.context(90))
    assert other["model.txt"] == files["model.txt"]
    assert other["calibration.json"] != files["calibration.json"]


def test_every_score_has_readable_reasons(worlds, fitted):
    case, ctx = use_case("churn"), simulate.context(90)
    _, files = fitted["churn"]
    sample = case.scoring(worlds["churn"], ctx, True)
    table = case.table(sample, case.predict(files, sample), files)
    assert table["reason_1"].str.contains(r"\((?:raises|lowers) the risk\)").all()
    assert not table["reason_1"].str.contains("nan").any()
    naive = case.table(sample, case.baselines["recency_rate"](sample), None)
    days = int(sample.rows["recency_days"].iloc[0])
    assert naive["reason_1"].iloc[0] == f"no order for {days} day{'' if days == 1 else 's'}"
    assert set(churn.DESCRIBE) == set(churn.FEATURES)
    for describe in churn.DESCRIBE.values():
        assert "nan" not in describe(float("nan"))
