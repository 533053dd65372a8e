"""From the lake to frames: only what was known as of D."""

from __future__ import annotations

import hashlib
import json
from datetime import date

import numpy as np
import pandas as pd

from include import lake
from include.dates import month_firsts
from include.settings import settings
from ml_tasks.lifecycle.usecase import Context, Frames, Sample, UseCase


def context(use_case: UseCase, as_of: date) -> Context:
    """The use case's context as of D, from the settings."""
    cfg = settings()
    return Context(
        as_of=as_of,
        horizon_days=getattr(cfg, use_case.horizon_setting),
        cutoffs=tuple(month_firsts(as_of, cfg.training_cutoffs)),
        seed=cfg.seed,
    )


def read_frames(use_case: UseCase, ctx: Context) -> Frames:
    """The lake tables the use case asks for; dates are ``datetime64``, rows of after D are not read.

    Raises ``FileNotFoundError`` for a table that was never written and ``LookupError`` when a feature view
    has no partition of D.
    """
    frames = {}
    for need in use_case.needs(ctx):
        uri = lake.table_uri(*need.table)
        if need.cutoffs is not None:
            days = sorted({*need.cutoffs, ctx.as_of})
            rows = lake.read(uri, filters=[("as_of", "in", days)], columns=list(need.columns))
        else:
            rows = lake.read(
                uri,
                filters=[("known_month", "<=", ctx.as_of.replace(day=1)), ("known_on", "<=", ctx.as_of)],
                columns=list(need.columns),
            )
        frame = rows.to_pandas(date_as_object=False)
        if need.cutoffs is not None and not (frame["as_of"] == pd.Timestamp(ctx.as_of)).any():
            view = need.table[-1]
            raise LookupError(
                f"The feature view {view} has no rows as of {ctx.as_of}: "
                f"run `python -m spark_jobs.features {view} --as-of {ctx.as_of}`."
            )
        frames[need.name] = known(frame, ctx.as_of)
    return frames


def known(frame: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Rows known as of D: the guard that holds whatever the reader passed."""
    for column in ("known_on", "as_of"):
        if column in frame:
            frame = frame[frame[column] <= pd.Timestamp(as_of)]
    return frame


def fingerprint(use_case: UseCase, sample: Sample | None, ctx: Context) -> str:
    """16 hex of what a challenger is made of: training rows, parameters, code version, seed, horizon."""
    digest = hashlib.sha256(
        json.dumps(
            [use_case.name, use_case.version, dict(use_case.params), ctx.horizon_days, ctx.seed], sort_keys=True
        ).encode()
    )
    for frame in (sample.past, sample.series) if sample is not None else ():
        digest.update(json.dumps([str(column) for column in frame.columns]).encode())
        if len(frame):
            digest.update(np.ascontiguousarray(pd.util.hash_pandas_object(frame, index=False).to_numpy()).tobytes())
    return digest.hexdigest()[:16]
