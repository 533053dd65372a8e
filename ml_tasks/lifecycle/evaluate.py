"""Losses, and whether one prediction is better than another beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

QUANTILES = (0.1, 0.5, 0.9)


def pinball(actual: np.ndarray, predicted: np.ndarray, quantile: float) -> np.ndarray:
    """Pinball loss per row: ``max(q (y - p), (q - 1) (y - p))`` (Koenker and Bassett, 1978). Unit of y."""
    error = np.asarray(actual, float) - np.asarray(predicted, float)
    return np.maximum(quantile * error, (quantile - 1) * error)


def mean_pinball(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean of the three pinball losses per row; ``predicted`` is (n, 3): p10, p50, p90."""
    return np.mean([pinball(actual, predicted[:, i], q) for i, q in enumerate(QUANTILES)], axis=0)


def quantile_metrics(actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Mean pinball, WAPE of p50 (share), coverage of [p10, p90] (share), bias of p50 (share of the total)."""
    total = max(float(np.sum(np.abs(actual))), 1e-12)
    return {
        "pinball": float(mean_pinball(actual, predicted).mean()),
        "wape": float(np.sum(np.abs(actual - predicted[:, 1])) / total),
        "coverage": float(np.mean((actual >= predicted[:, 0]) & (actual <= predicted[:, 2]))),
        "bias": float(np.sum(predicted[:, 1] - actual) / total),
    }


def log_loss(actual: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Negative log likelihood per row, in nats; probabilities are clipped to [1e-6, 1 - 1e-6]."""
    p = np.clip(np.asarray(probability, float), 1e-6, 1 - 1e-6)
    y = np.asarray(actual, float)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def probability_metrics(actual: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Log loss, Brier, AUC (0.5 where one class is absent), lift in the top decile, calibration error (10 bins)."""
    y, p = np.asarray(actual, float), np.asarray(probability, float)
    n_positive = y.sum()
    ranks = pd.Series(p).rank().to_numpy()
    pairs = n_positive * (len(y) - n_positive)
    auc = (ranks[y == 1].sum() - n_positive * (n_positive + 1) / 2) / pairs if pairs else 0.5
    top = np.argsort(-p, kind="stable")[: max(1, len(y) // 10)]
    bins = pd.DataFrame({"y": y, "p": p}).groupby(np.minimum((p * 10).astype(int), 9)).agg(["mean", "size"])
    gap = (bins[("y", "mean")] - bins[("p", "mean")]).abs() * bins[("y", "size")]
    return {
        "log_loss": float(log_loss(y, p).mean()),
        "brier": float(np.mean((y - p) ** 2)),
        "auc": float(auc),
        "lift_top_decile": float(y[top].mean() / y.mean()) if n_positive else 1.0,
        "calibration_error": float(gap.sum() / len(y)),
        "base_rate": float(y.mean()),
    }


@dataclass(frozen=True)
class Comparison:
    """Mean loss of A minus mean loss of B, with a 95% interval. Negative: A is better."""

    difference: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        return self.high < 0

    @property
    def is_worse(self) -> bool:
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.difference:+.4g}, 95% interval {self.low:+.4g} to {self.high:+.4g}"


def clusters(rows: pd.DataFrame, keys: Sequence[str]) -> np.ndarray:
    """Cluster number of each row: one cluster per entity."""
    return rows.groupby(list(keys), sort=True).ngroup().to_numpy()


def paired_bootstrap(
    loss_a: np.ndarray, loss_b: np.ndarray, cluster: np.ndarray, seed: int, n_resamples: int = 1000
) -> Comparison:
    """Percentile bootstrap of the mean of ``loss_a - loss_b``, resampling whole entities.

    Rows of one entity share their errors, so rows are never resampled one by one (Efron and Tibshirani,
    1993, chapter 8). The resampled mean is a ratio, as entities may have different numbers of rows.
    """
    difference = np.asarray(loss_a, float) - np.asarray(loss_b, float)
    sums = np.bincount(cluster, weights=difference)
    sizes = np.bincount(cluster).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for i in range(n_resamples):
        drawn = np.bincount(rng.integers(0, len(sums), len(sums)), minlength=len(sums))
        means[i] = (sums @ drawn) / (sizes @ drawn)
    low, high = np.quantile(means, [0.025, 0.975])
    return Comparison(float(difference.mean()), float(low), float(high))
