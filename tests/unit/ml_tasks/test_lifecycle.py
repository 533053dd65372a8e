"""Losses, the gate, the files of a model, reasons."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_tasks import use_case, use_case_names
from ml_tasks.lifecycle import dataset, register
from ml_tasks.lifecycle.evaluate import (
    log_loss,
    mean_pinball,
    paired_bootstrap,
    pinball,
    probability_metrics,
    quantile_metrics,
)
from ml_tasks.lifecycle.explain import top_reasons
from ml_tasks.lifecycle.gate import decide


def test_pinball_is_what_a_hand_calculates():
    # y = 10: forecast 7 is 3 too low, forecast 12 is 2 too high.
    assert pinball(np.array([10.0]), np.array([7.0]), 0.9)[0] == pytest.approx(0.9 * 3)
    assert pinball(np.array([10.0]), np.array([12.0]), 0.9)[0] == pytest.approx(0.1 * 2)
    assert pinball(np.array([10.0]), np.array([12.0]), 0.1)[0] == pytest.approx(0.9 * 2)
    # (0.1 * 4 + 0.5 * 1 + 0.1 * 3) / 3
    assert mean_pinball(np.array([10.0]), np.array([[6.0, 9.0, 13.0]]))[0] == pytest.approx((0.4 + 0.5 + 0.3) / 3)


def test_pinball_is_least_at_the_quantile():
    y = np.random.default_rng(0).gamma(2, 3, 20_000)
    means = {q: pinball(y, np.full_like(y, np.quantile(y, q)), 0.9).mean() for q in (0.8, 0.9, 0.95)}
    assert min(means, key=means.get) == 0.9


def test_quantile_metrics_by_hand():
    got = quantile_metrics(np.array([4.0, 6.0]), np.array([[3.0, 5.0, 8.0], [7.0, 8.0, 9.0]]))
    assert got["wape"] == pytest.approx((1 + 2) / 10)
    assert got["coverage"] == 0.5
    assert got["bias"] == pytest.approx(3 / 10)


def test_probability_metrics_by_hand():
    y, p = np.array([1, 0, 1, 0]), np.array([0.9, 0.2, 0.6, 0.7])
    got = probability_metrics(y, p)
    assert got["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.6, 0.3])))
    assert got["brier"] == pytest.approx(np.mean([0.01, 0.04, 0.16, 0.49]))
    assert got["auc"] == pytest.approx(3 / 4)
    assert got["lift_top_decile"] == pytest.approx(2.0)
    assert np.isfinite(log_loss(np.array([1.0]), np.array([0.0]))).all()


def test_interval_is_wider_when_errors_are_shared_within_an_entity():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(50), 20)
    difference = rng.normal(-0.1, 1, 50)[cluster]
    by_entity = paired_bootstrap(difference, np.zeros(1000), cluster, seed=1)
    by_row = paired_bootstrap(difference, np.zeros(1000), np.arange(1000), seed=1)
    assert by_entity.high - by_entity.low > 3 * (by_row.high - by_row.low)
    assert by_entity == paired_bootstrap(difference, np.zeros(1000), cluster, seed=1)


N = 400
CLUSTER = np.arange(N)
NOISE = np.random.default_rng(5).normal(0, 0.1, N)


def losses(level: float) -> np.ndarray:
    """Losses that differ from another level's by noise of their own."""
    return level + NOISE * (1 + level)


def test_challenger_that_beats_everybody_is_promoted():
    got = decide({"a": losses(1.0), "b": losses(1.2)}, losses(0.7), losses(0.9), None, CLUSTER, seed=1)
    assert (got.champion, got.baseline) == ("challenger", "a")
    assert got.interval.high < 0


def test_challenger_that_ties_with_the_incumbent_is_not_promoted():
    tie = losses(0.9) + np.random.default_rng(2).normal(0, 0.3, N)
    got = decide({"a": losses(1.2)}, tie, losses(0.9), None, CLUSTER, seed=1)
    assert got.champion == "incumbent"
    assert "not promoted" in got.reason


def test_challenger_that_beats_the_incumbent_but_not_the_naive_rule_is_not_promoted():
    got = decide({"a": losses(0.5)}, losses(0.8), losses(0.9), None, CLUSTER, seed=1)
    assert got.champion == "naive:a"
    assert "dismissed" in got.reason


def test_naive_rule_is_champion_where_no_model_beats_it():
    got = decide({"a": losses(1.0), "b": losses(1.1)}, losses(1.05), None, None, CLUSTER, seed=1)
    assert got.champion == "naive:a"
    got = decide({"a": losses(1.0), "b": losses(1.1)}, None, None, None, CLUSTER, seed=1)
    assert got.champion == "naive:a"


def test_naive_incumbent_gives_way_to_another_rule_only_beyond_chance():
    tie = losses(1.0) + np.random.default_rng(2).normal(0.001, 0.3, N)
    assert decide({"a": losses(1.0), "b": tie}, None, None, "b", CLUSTER, seed=1).champion == "naive:b"
    assert decide({"a": losses(1.0), "b": losses(2.0)}, None, None, "b", CLUSTER, seed=1).champion == "naive:a"


def test_too_few_entities_promote_nobody():
    got = decide({"a": losses(1.0)}, losses(0.1), losses(0.9), None, np.arange(N) % 5, seed=1)
    assert got.champion == "incumbent"


@settings(max_examples=15, deadline=None)
@given(st.floats(0.1, 2), st.floats(0.1, 2), st.floats(0.1, 2))
def test_promotion_never_takes_a_worse_model(naive, challenger, incumbent):
    got = decide({"a": losses(naive)}, losses(challenger), losses(incumbent), None, CLUSTER, seed=1)
    mean = {"challenger": challenger, "incumbent": incumbent, "naive:a": naive}[got.champion]
    if got.champion == "challenger":
        assert challenger < min(naive, incumbent)
    else:
        assert mean <= max(naive, incumbent)


def write_model(folder, files):
    meta = register.meta_of(files, {"use_case": "x"})
    for name, text in {**files, register.META: meta}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return register.sha256(meta)


def test_files_that_were_registered_are_believed(tmp_path):
    files = {"model.txt": "tree", "prophet/00.json": "{}"}
    assert register.verify(tmp_path, write_model(tmp_path, files)) == files


@pytest.mark.parametrize("change", ["edit", "binary", "add", "remove", "meta"])
def test_file_that_is_not_the_registered_one_is_refused(tmp_path, change):
    digest = write_model(tmp_path, {"model.txt": "tree", "calibration.json": "{}"})
    if change == "edit":
        (tmp_path / "model.txt").write_text("another tree")
    elif change == "binary":
        (tmp_path / "model.txt").write_bytes(b"\xfftree")
    elif change == "add":
        (tmp_path / "more.txt").write_text("")
    elif change == "remove":
        (tmp_path / "calibration.json").unlink()
    else:
        write_model(tmp_path, {"model.txt": "consistent but not registered", "calibration.json": "{}"})
    with pytest.raises(register.Tampered):
        register.verify(tmp_path, digest)


def test_reasons_are_the_largest_contributions_with_their_direction():
    describe = {"a": lambda v: f"a is {v:.0f}", "b": lambda v: f"b is {v:.0f}", "c": lambda v: f"c is {v:.0f}"}
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    shap = np.array([[0.1, -0.5, 0.2], [0.0, 0.0, 0.3]])
    got = top_reasons(values, shap, ["a", "b", "c"], describe)
    assert [column[0] for column in got] == [
        "b is 2 (lowers the risk)",
        "c is 3 (raises the risk)",
        "a is 1 (raises the risk)",
    ]
    assert [column[1] for column in got] == ["c is 6 (raises the risk)", None, None]


def test_rows_known_after_the_day_are_dropped_whatever_the_reader_returns():
    frame = pd.DataFrame({"known_on": pd.to_datetime(["2025-12-31", "2026-01-01"])})
    assert len(dataset.known(frame, date(2025, 12, 31))) == 1


def test_every_folder_with_a_use_case_is_found():
    assert use_case_names() == ["churn", "demand_category", "demand_forecast"]
    for name in use_case_names():
        assert use_case(name).name == name
        assert use_case(name).default_baseline in use_case(name).baselines
    with pytest.raises(LookupError, match="churn, demand_category"):
        use_case("nothing")


def test_fingerprint_follows_data_parameters_and_code():
    from tests.unit.ml_tasks import simulate

    case, ctx = use_case("churn"), simulate.context(90)
    world = simulate.shop(200)
    sample = case.evaluation(world, ctx)
    same = dataset.fingerprint(case, case.evaluation(world, ctx), ctx)
    assert dataset.fingerprint(case, sample, ctx) == same
    assert dataset.fingerprint(replace(case, version=99), sample, ctx) != same
    assert dataset.fingerprint(replace(case, params={**case.params, "n_trees": 1}), sample, ctx) != same
    sample.past.loc[0, "recency_days"] += 1
    assert dataset.fingerprint(case, sample, ctx) != same
