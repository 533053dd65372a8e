"""What the use cases are made of, on frames small enough for a hand: features, labels, ranks, naive rules."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from ml_tasks import use_case, use_case_names
from ml_tasks.churn import usecase as churn
from ml_tasks.demand_forecast import usecase as forecast
from ml_tasks.lifecycle.evaluate import log_loss
from ml_tasks.lifecycle.usecase import Sample
from ml_tasks.series import day_number, naive_quantiles, quantile_frame
from tests.unit.ml_tasks import simulate


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


@pytest.mark.parametrize("name", use_case_names())
def test_hardly_any_history_gives_no_challenger_and_still_a_forecast(name):
    case = use_case(name)
    if name == "churn":
        world = simulate.shop(100, n_days=40)
    else:
        world = {"history": simulate.demand_history(10, n_days=50)}
    ctx = simulate.context(simulate.HORIZON_DAYS[name])
    sample = case.evaluation(world, ctx)
    assert sample is None or case.fit(sample, ctx) is None
    now = case.scoring(world, ctx, True)
    said = case.baselines[case.default_baseline](now)
    assert len(said) == len(now.rows) > 0
    assert np.isfinite(said.to_numpy()).all()
