"""The predictions gate on frames: what is right passes, each way of being wrong is named."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from expectations import predictions as gate
from expectations._gx import Verdict
from ml_tasks import series
from ml_tasks.churn import usecase as churn

AS_OF = date(2025, 12, 31)


def forecast(n: int = 4) -> pd.DataFrame:
    days = [AS_OF + timedelta(days=h) for h in range(1, 29)]
    frame = pd.DataFrame([("m", f"p{i}", day) for i in range(n) for day in days])
    frame.columns = ["marketplace", "product_id", "forecast_on"]
    base = np.arange(len(frame)) % 7 + 1.0
    return frame.assign(as_of=AS_OF, p10=base, p50=base + 1, p90=base + 2, model_name="x", model_version="1")


def scores(n: int = 40) -> pd.DataFrame:
    p = np.linspace(0.99, 0.01, n)
    return pd.DataFrame(
        {
            "as_of": AS_OF,
            "customer_id": [f"c{i:02d}" for i in range(n)],
            "churn_probability": p,
            "decile": np.arange(n) * 10 // n + 1,
            "reason_1": "no order for 74 days",
            "model_name": "x",
            "model_version": "1",
        }
    )


def broken(target: str, frame: pd.DataFrame, eligible: pd.DataFrame, before=None, severity="critical") -> dict:
    checks = gate.audit(target, frame, gate.AUDITS[target], eligible, before, AS_OF)
    plain = [one.check if isinstance(one, Verdict) else one for one in checks]
    assert len({check.rule for check in plain}) == len(plain)
    return {check.rule: check for check in plain if check.severity == severity and not check.is_passed}


def broken_forecast(frame: pd.DataFrame, **kwargs) -> dict:
    return broken("demand_forecast", frame, forecast()[["marketplace", "product_id"]].drop_duplicates(), **kwargs)


def broken_scores(frame: pd.DataFrame, **kwargs) -> dict:
    return broken("churn_score", frame, scores()[["customer_id"]], **kwargs)


def test_right_tables_pass():
    assert broken_forecast(forecast()) == {}
    assert broken_scores(scores()) == {}
    assert broken_forecast(forecast(), before=forecast(), severity="warning") == {}
    assert broken_scores(scores(), before=scores(), severity="warning") == {}


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("p10", 99.0, "p10_is_at_most_p50"),
        ("p90", 0.0, "p50_is_at_most_p90"),
        ("p10", -0.1, "p10_is_finite_and_not_negative"),
        ("p90", np.inf, "p90_is_finite_and_not_negative"),
        ("p50", np.nan, "p50_is_given"),
        ("forecast_on", AS_OF, "forecast_on_is_within_the_horizon"),
        ("model_version", "2", "model_version_is_the_same_everywhere"),
        ("as_of", AS_OF - timedelta(days=1), "as_of_is_the_business_day"),
    ],
)
def test_one_wrong_forecast_row_is_named(column, value, rule):
    frame = forecast()
    frame.loc[5, column] = value
    assert rule in broken_forecast(frame)


def test_offending_keys_are_named():
    frame = forecast()
    frame.loc[30, "p10"] = 99.0
    first = broken_forecast(frame)["p10_is_at_most_p50"].observed["first"][0]
    assert (first["product_id"], first["forecast_on"]) == ("p1", "2026-01-03")


def test_missing_day_and_repeated_key_are_caught():
    assert "every_entity_has_every_day" in broken_forecast(forecast().drop(index=3))
    twice = forecast()
    twice.loc[3, "forecast_on"] = twice.loc[2, "forecast_on"]
    assert {"key_is_unique", "every_entity_has_every_day"} <= set(broken_forecast(twice))


def test_entity_without_prediction_and_prediction_without_entity_are_caught():
    got = broken_forecast(forecast(3))["every_eligible_entity_is_predicted"]
    assert got.observed["first"] == [{"marketplace": "m", "product_id": "p3"}]
    assert "only_eligible_entities_are_predicted" in broken_forecast(forecast(5))


def test_empty_table_is_rejected_when_somebody_is_eligible():
    assert "every_eligible_entity_is_predicted" in broken_forecast(forecast().iloc[:0])
    assert broken("churn_score", scores().iloc[:0], scores().iloc[:0][["customer_id"]]) == {}


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_probability_outside_0_1_is_caught(value):
    frame = scores()
    frame.loc[7, "churn_probability"] = value
    assert any(rule.startswith("churn_probability") for rule in broken_scores(frame))


def test_uneven_or_unsorted_deciles_are_caught():
    uneven = scores()
    uneven["decile"] = np.minimum(uneven["decile"], 9)
    assert "deciles_are_even_and_sorted" in broken_scores(uneven)
    upside_down = scores().assign(decile=lambda frame: 11 - frame["decile"])
    assert "deciles_are_even_and_sorted" in broken_scores(upside_down)


def test_constant_and_shifted_predictions_warn_but_do_not_block():
    constant = scores().assign(churn_probability=0.5)
    assert broken_scores(constant) == {}
    assert "predictions_are_not_constant" in broken_scores(constant, severity="warning")
    far = forecast().assign(p50=lambda frame: frame["p50"] * 2, p90=lambda frame: frame["p90"] * 2)
    assert broken_forecast(far, before=forecast()) == {}
    assert "mean_is_near_the_day_before" in broken_forecast(far, before=forecast(), severity="warning")
    assert "row_count_is_near_the_day_before" in broken_forecast(forecast(), before=forecast(8), severity="warning")


def test_table_nobody_listed_is_audited_by_its_columns_with_a_warning_about_coverage():
    what = gate.Audit(("customer_id",), None)
    frame = scores().rename(columns={"churn_probability": "fraud_probability"})
    frame.loc[7, "fraud_probability"] = 1.5
    checks = gate.audit("fraud_score", frame, what, None, None, AS_OF)
    plain = [one.check if isinstance(one, Verdict) else one for one in checks]
    failed = {check.rule: check.severity for check in plain if not check.is_passed}
    assert failed == {
        "fraud_probability_is_in_0_1": "critical",
        "deciles_are_even_and_sorted": "critical",
        "coverage_is_known": "warning",
    }


def test_gate_and_scorer_agree_on_who_is_eligible():
    assert (gate.SOLD_WITHIN_DAYS, gate.LOOKBACK_DAYS, gate.MIN_SALE_DAYS) == (
        series.ACTIVE_DAYS,
        series.LOOKBACK_DAYS,
        series.MIN_SALE_DAYS,
    )
    assert gate.ORDERED_WITHIN_DAYS == churn.ELIGIBLE_DAYS
