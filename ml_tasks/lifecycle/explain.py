"""Why a model said so: TreeSHAP contributions as sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import lightgbm

Describe = Callable[[float], str]
"""A feature's value as readable text; it gets NaN where the value is missing."""


def contributions(booster: lightgbm.Booster, rows: pd.DataFrame) -> np.ndarray:
    """TreeSHAP values (Lundberg et al., 2018) by LightGBM's own ``pred_contrib``; (n, n_features), in log odds."""
    names = booster.feature_name()
    return np.asarray(booster.predict(rows[names].to_numpy(float), pred_contrib=True))[:, : len(names)]


def top_reasons(
    values: np.ndarray, shap: np.ndarray, names: list[str], describe: Mapping[str, Describe], n: int = 3
) -> list[list[str | None]]:
    """The ``n`` largest contributions of each row by absolute size, as text with the direction.

    ``values`` and ``shap`` are (n_rows, n_features). Ties go to the earlier feature, so a rerun says the
    same. A contribution of zero is no reason: the entry is None.
    """
    order = np.argsort(-np.abs(shap), axis=1, kind="stable")[:, :n]
    columns: list[list[str | None]] = []
    for place in range(order.shape[1]):
        which = order[:, place]
        column: list[str | None] = []
        for row, feature in enumerate(which):
            size = shap[row, feature]
            if size == 0:
                column.append(None)
                continue
            verb = "raises" if size > 0 else "lowers"
            column.append(f"{describe[names[feature]](values[row, feature])} ({verb} the risk)")
        columns.append(column)
    columns += [[None] * len(values)] * (n - len(columns))
    return columns
