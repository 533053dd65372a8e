"""What a use case says about itself. Frames in, values out: no clock, environment, Airflow or I/O in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

THREADS = 2
"""Fixed, because LightGBM's sums depend on the number of threads; equal runs must give equal models."""

Files = Mapping[str, str]
"""A model: file name -> text. Only text formats (LightGBM's own, JSON); never pickle."""

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Context:
    """What a use case may know besides its frames."""

    as_of: date
    horizon_days: int
    cutoffs: tuple[date, ...]
    """Month-first days up to ``as_of``, oldest first, for which the feature views have a partition."""
    seed: int


@dataclass(frozen=True)
class Need:
    """A lake table that a use case reads: feature partitions ``cutoffs``, else all rows with ``known_on <= as_of``."""

    name: str
    table: tuple[str, ...]
    columns: tuple[str, ...]
    cutoffs: tuple[date, ...] | None = None


@dataclass(frozen=True)
class Sample:
    """Rows to predict as of a cutoff, with what was known by then.

    ``rows``: entity keys, features and, where the future is known, ``label``. ``past``: labelled rows of
    earlier cutoffs, every label known by ``cutoff`` (models and naive rules learn from it).
    ``series``: observations known by ``cutoff``, for models that are refitted on the newest data.
    """

    cutoff: date
    rows: pd.DataFrame
    past: pd.DataFrame
    series: pd.DataFrame = field(default_factory=pd.DataFrame)


Rule = Callable[[Sample], pd.DataFrame]
"""A naive rule: predictions for ``sample.rows`` (same index), calibrated on ``sample.past`` only."""


@dataclass(frozen=True)
class UseCase:
    """A use case. All prediction frames have the columns ``outputs`` and the index of the rows they predict."""

    name: str
    predicts: str
    """One sentence for the model card."""
    target: str
    """The table in ``predictions``."""
    model: str
    """Registered model's name; what ``model_name`` says while a model is champion."""
    version: int
    """Raise it when code or features change in a way that the training frame does not show."""
    entity: tuple[str, ...]
    horizon_setting: str
    metric: str
    """A mean of ``loss`` over rows; lower is better."""
    outputs: tuple[str, ...]
    params: Mapping[str, Any]
    limits: tuple[str, ...]
    needs: Callable[[Context], list[Need]]
    evaluation: Callable[[Frames, Context], Sample | None]
    """The evaluation window with labels known as of D, and the earlier rows to learn from; None without history."""
    scoring: Callable[[Frames, Context, bool], Sample]
    """Every eligible entity as of D; labelled past rows only when asked for (a naive champion needs them)."""
    fit: Callable[[Sample, Context], Files | None]
    """Learns from ``sample.past``/``series`` only, never from ``sample.rows['label']``. None: too little data."""
    predict: Callable[[Files, Sample], pd.DataFrame]
    baselines: Mapping[str, Rule]
    default_baseline: str
    loss: Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]
    metrics: Callable[[pd.DataFrame, pd.DataFrame], dict[str, float]]
    table: Callable[[Sample, pd.DataFrame, Files | None], pd.DataFrame]
    """Rows of the prediction table without ``as_of``, ``model_version`` and (unless set) ``model_name``."""
    features: tuple[str, ...] = ()
    min_entities: int = 30
    """Fewer entities in the evaluation window than this promote nothing."""
    picture: Callable[[pd.DataFrame, pd.DataFrame, Files], bytes | None] | None = None
    """PNG for the model card from evaluation rows, predictions and the model."""
