"""Score as of D with the champion of D's decision, into a staged table that the predictions gate audits."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pyarrow as pa

from include import ops
from include.warehouse import publish
from include.warehouse.engine import connect
from ml_tasks.lifecycle import dataset, register
from ml_tasks.lifecycle.gate import Decision, decision_of
from ml_tasks.lifecycle.progress import step
from ml_tasks.lifecycle.usecase import Context, Frames, UseCase


def score(use_case: UseCase, as_of: date) -> str:
    """Stage the predictions of D; returns the staged table's name.

    Raises ``LookupError`` that names the command to run when D has no decision, ``register.Tampered`` when
    the champion's files are not the registered ones.
    """
    ctx = dataset.context(use_case, as_of)
    with connect("scorer", autocommit=True) as conn:
        decision = decision_of(conn, use_case.name, as_of)
    if decision is None:
        raise LookupError(
            f"There is no champion of {use_case.name} as of {as_of}: "
            f"run `python -m ml_tasks.train {use_case.name} --as-of {as_of}` first."
        )
    with step(f"{use_case.name}: read the lake") as notes:
        frames = dataset.read_frames(use_case, ctx)
        notes |= {name: len(frame) for name, frame in frames.items()}
    files = None
    if decision.naive_rule is None:
        with step(f"{use_case.name}: load {decision.champion_name} {decision.champion_version}"):
            files = register.load(decision.champion_name, decision.champion_version).files
    with step(f"{use_case.name}: predict") as notes:
        table = predictions(use_case, ctx, frames, decision, files)
        notes |= {"rows": len(table), "model": f"{decision.champion_name} {decision.champion_version}"}
    with step(f"{use_case.name}: stage") as notes:
        token = ops.begin(use_case.target, as_of)
        staged = publish.stage(use_case.target, as_of, token, pa.Table.from_pandas(table, preserve_index=False))
        notes["table"] = staged
    return staged


def predictions(
    use_case: UseCase, ctx: Context, frames: Frames, decision: Decision, files: register.Files | None
) -> pd.DataFrame:
    """Rows of the prediction table as of D, sorted by entity, each with the champion's name and version."""
    if decision.naive_rule is not None:
        sample = use_case.scoring(frames, ctx, True)
        predicted = use_case.baselines[decision.naive_rule](sample)
    else:
        assert files is not None
        sample = use_case.scoring(frames, ctx, False)
        predicted = use_case.predict(files, sample)
    table = use_case.table(sample, predicted, files)
    if "model_name" not in table:
        table["model_name"] = decision.champion_name
    table["model_version"] = decision.champion_version
    table.insert(0, "as_of", ctx.as_of)
    keys = [*use_case.entity, *(["forecast_on"] if "forecast_on" in table else [])]
    table = table.sort_values(keys, kind="stable", ignore_index=True)
    if "forecast_on" in table:
        table["forecast_on"] = table["forecast_on"].dt.date
    return table
