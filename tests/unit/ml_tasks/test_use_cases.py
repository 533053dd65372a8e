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
from ml_tasks.lifecycle.evaluate import clusters, log_loss
from ml_tasks.lifecycle.gate import decide
from ml_tasks.lifecycle.usecase import Sample
from ml_tasks.series import day_number, naive_quantiles, quantile_frame
from tests.unit.ml_tasks import simulate

HORIZON = {"demand_forecast": 28, "demand_category": 28, "churn": 90}


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
        ctx = simulate.context(HORIZON[name])
        sample = use_case(name).evaluation(worlds[name], ctx)
        out[name] = sample, use_case(name).fit(sample, ctx)
    return out


@pytest.mark.parametrize("name", use_case_names())
def test_no_training_label_reaches_into_the_evaluation_window(name, fitted):
    sample, _ = fitted[name]
    last = sample.past["cutoff_on"].max() + pd.Timedelta(days=HORIZON[name])
    assert last <= pd.Timestamp(sample.cutoff)
    assert sample.cutoff + timedelta(days=HORIZON[name]) <= simulate.AS_OF
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
    changed = use_case(name).evaluation(world, simulate.context(HORIZON[name]))
    pd.testing.assert_frame_equal(changed.past, sample.past)
    pd.testing.assert_frame_equal(changed.rows.drop(columns="label"), sample.rows.drop(columns="label"))
    assert not changed.rows["label"].equals(sample.rows["label"])


@pytest.mark.parametrize("name", use_case_names())
def test_rows_known_after_the_day_change_nothing_at_all(name, worlds):
    ctx = simulate.context(HORIZON[name], as_of=date(2025, 12, 20))
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
    assert use_case(name).fit(blind, simulate.context(HORIZON[name])) == files


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


def test_crossed_and_negative_quantiles_are_put_in_order():
    said = quantile_frame(np.array([[3.0, 1.0, 2.0], [-1.0, 0.5, -2.0]]), pd.RangeIndex(2))
    assert said.to_numpy().tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.5]]


def test_features_are_what_a_hand_calculates():
    at = day_number(date(2025, 12, 31))
    days = np.arange(at - 199, at + 1)
    history = pd.DataFrame(
        {
            "marketplace": "m", "product_id": "p", "category": "c",
            "sold_on": days.astype("datetime64[D]").astype("datetime64[s]"),
            "known_on": days.astype("datetime64[D]").astype("datetime64[s]"),
            "units_delta": (days % 7 + 1).astype(float), "revenue_delta": 2.0 * (days % 7 + 1),
            "as_of": pd.Timestamp("2025-12-31"),
        }
    )  # fmt: skip
    rows = use_case("demand_forecast").scoring({"history": history}, simulate.context(28), False).rows
    expected = (at + rows["horizon"]) % 7 + 1
    assert (rows["same_weekday_last"] == expected).all()
    assert (rows["same_weekday_8"] == expected).all()
    assert rows["mean_28"].unique() == pytest.approx([4.0])
    assert rows["unit_price_amount"].unique() == pytest.approx([2.0])
    assert rows["days_since_sale"].unique() == [0.0]
    assert (rows["weekday"] == rows["forecast_on"].dt.dayofweek).all()


def test_order_cancelled_later_still_counts_at_an_earlier_cutoff():
    history = simulate.demand_history(3)
    series, _ = forecast._history({"history": history}, simulate.context(28))
    before = series.window(np.arange(3), day_number(date(2025, 6, 1)), day_number(date(2025, 6, 28)), known=10**6)
    late = history.assign(known_on=history["known_on"].where(history["units_delta"] > 0, pd.Timestamp("2025-12-31")))
    series, _ = forecast._history({"history": late}, simulate.context(28))
    known = day_number(date(2025, 12, 30))
    after = series.window(np.arange(3), day_number(date(2025, 6, 1)), day_number(date(2025, 6, 28)), known=known)
    assert after.sum() > before.sum()


def test_naive_quantiles_come_from_past_errors_of_like_sellers():
    level = np.r_[np.full(100, 50.0), np.zeros(100)]
    past = pd.DataFrame({"label": np.r_[np.arange(100.0), np.zeros(100)], "mean_28": level, "level": level})
    rows = pd.DataFrame({"mean_28": [50.0, 0.0], "level": [50.0, 0.0]})
    said = naive_quantiles(Sample(date(2025, 1, 1), rows, past), "mean_28")
    assert said.iloc[0].tolist() == pytest.approx([9.9, 49.5, 89.1])
    assert said.iloc[1].tolist() == [0.0, 0.0, 0.0]


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


def test_calibrated_probabilities_are_better_than_uncalibrated_ones():
    """Planted: log odds three times too large and shifted; Platt's two numbers undo it on rows not seen."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, 8000)
    label = (rng.random(8000) < 1 / (1 + np.exp(-truth))).astype(float)
    said = 3 * truth + 1
    slope, intercept = churn.platt(said[:4000], label[:4000])
    assert slope == pytest.approx(1 / 3, rel=0.1)
    raw = log_loss(label[4000:], 1 / (1 + np.exp(-said[4000:]))).mean()
    calibrated = log_loss(label[4000:], 1 / (1 + np.exp(-(slope * said[4000:] + intercept)))).mean()
    assert calibrated < 0.8 * raw


def test_calibration_never_turns_the_ranking_around():
    log_odds = np.linspace(-2, 2, 400)
    slope, intercept = churn.platt(log_odds, (log_odds < 0).astype(float))
    assert slope == 1.0
    assert np.isfinite(intercept)
    assert np.isfinite(churn.platt(log_odds, np.ones(400))).all()


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


def test_churn_label_is_an_order_within_the_horizon_as_known_then():
    orders = pd.DataFrame(
        [
            ("o1", "on_cutoff_day", "2025-06-01", "created", "2025-06-01"),
            ("o2", "next_day", "2025-06-02", "created", "2025-06-02"),
            ("o3", "last_day", "2025-08-30", "created", "2025-08-30"),
            ("o4", "too_late", "2025-08-31", "created", "2025-08-31"),
            ("o5", "cancelled", "2025-06-10", "created", "2025-06-10"),
            ("o5", "cancelled", "2025-06-10", "canceled", "2025-09-15"),
        ],
        columns=["order_id", "customer_id", "ordered_on", "status", "known_on"],
    ).assign(marketplace="m")
    orders[["ordered_on", "known_on"]] = orders[["ordered_on", "known_on"]].apply(pd.to_datetime)
    orders["known_at"] = orders["known_on"].dt.tz_localize("UTC")
    customers = pd.Series(["on_cutoff_day", "next_day", "last_day", "too_late", "cancelled"])
    cutoff = date(2025, 6, 1)
    assert churn.build_labels(orders, customers, cutoff, 90, date(2025, 9, 1)).tolist() == [1, 0, 0, 1, 0]
    assert churn.build_labels(orders, customers, cutoff, 90, date(2025, 9, 15)).tolist() == [1, 0, 0, 1, 1]


def test_deciles_put_the_most_at_risk_first_and_break_ties_by_customer():
    customers = pd.Series([f"c{i:02d}" for i in range(20)][::-1])
    assert churn.deciles(np.full(20, 0.5), customers).tolist() == np.repeat(np.arange(1, 11), 2)[::-1].tolist()
    assert churn.deciles(np.array([0.1, 0.9]), pd.Series(["a", "b"])).tolist() == [6, 1]


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


@pytest.mark.parametrize("name", use_case_names())
def test_hardly_any_history_gives_no_challenger_and_still_a_forecast(name, worlds):
    case = use_case(name)
    if name == "churn":
        world = simulate.shop(100, n_days=40)
    else:
        world = {"history": simulate.demand_history(10, n_days=50)}
    ctx = simulate.context(HORIZON[name])
    sample = case.evaluation(world, ctx)
    assert sample is None or case.fit(sample, ctx) is None
    now = case.scoring(world, ctx, True)
    said = case.baselines[case.default_baseline](now)
    assert len(said) == len(now.rows) > 0
    assert np.isfinite(said.to_numpy()).all()
