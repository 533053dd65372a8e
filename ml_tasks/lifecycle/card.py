"""The model card: what a version is, what it was measured against, and what it must not be used for."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ml_tasks.lifecycle.gate import Decision
from ml_tasks.lifecycle.usecase import Context, Sample, UseCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def model_card(
    use_case: UseCase,
    ctx: Context,
    sample: Sample,
    decision: Decision,
    metrics: Mapping[str, Mapping[str, float]],
    has_picture: bool,
) -> str:
    """Markdown. ``metrics``: who (challenger, incumbent, naive:...) -> metric -> value on the evaluation window."""
    names = sorted({name for values in metrics.values() for name in values})
    names.sort(key=lambda name: name != use_case.metric)
    lines = [
        f"# {use_case.model} version {decision.challenger_version}, trained as of {ctx.as_of}",
        "",
        f"Predicts: {use_case.predicts}",
        "",
        f"Decision as of {ctx.as_of}: champion is **{decision.champion_name} {decision.champion_version}**. "
        f"{decision.reason}",
        "",
        "## Data",
        "",
        f"- training rows: {len(sample.past):,}, cutoffs {_span(sample.past)}, labels known by {sample.cutoff}",
        f"- evaluation: {len(sample.rows):,} rows of {_entities(sample.rows, use_case):,} entities at cutoff "
        f"{sample.cutoff}, the {ctx.horizon_days} days after it, labels as known on {ctx.as_of}",
        f"- data fingerprint `{decision.data_fingerprint}`, code version {use_case.version}, seed {ctx.seed}",
        "",
        "## On the evaluation window",
        "",
        f"Lower `{use_case.metric}` is better. Nobody in this table learned from this window.",
        "",
        "| who | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    lines += [
        f"| {who} | " + " | ".join(f"{values[name]:.4g}" if name in values else "" for name in names) + " |"
        for who, values in metrics.items()
    ]
    if decision.ci_low is not None:
        lines += [
            "",
            "Difference to the reigning champion, or to the best naive rule where no model reigns: 95% interval "
            f"{decision.ci_low:+.4g} to {decision.ci_high:+.4g} (paired bootstrap over entities; negative is better).",
        ]
    lines += ["", "## Parameters", "", *[f"- {key}: {value}" for key, value in use_case.params.items()]]
    if use_case.features:
        lines += ["", "## Features", "", ", ".join(f"`{name}`" for name in use_case.features)]
    if has_picture:
        lines += ["", "![evaluation](model_card.png)"]
    lines += ["", "## Limits", "", *[f"- {limit}" for limit in use_case.limits], ""]
    return "\n".join(lines)


def _span(past: pd.DataFrame) -> str:
    if "cutoff_on" not in past or past.empty:
        return "none"
    return f"{past['cutoff_on'].min():%Y-%m-%d} to {past['cutoff_on'].max():%Y-%m-%d}"


def _entities(rows: pd.DataFrame, use_case: UseCase) -> int:
    return len(rows[list(use_case.entity)].drop_duplicates())


def importance_and_calibration(gain: Mapping[str, float], actual: np.ndarray, probability: np.ndarray) -> bytes:
    """PNG: the ten features with the most gain; observed share against predicted probability in ten groups."""
    groups = pd.qcut(pd.Series(probability).rank(method="first"), min(10, len(probability)), labels=False)
    points = pd.DataFrame({"p": probability, "y": actual}).groupby(groups.to_numpy()).mean()

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.plot(points["p"], points["y"], marker="o")
        axes.set(xlabel="predicted probability", ylabel="observed share", title="Calibration on the evaluation window")

    return _two_panels(gain, draw)


def importance_and_days(gain: Mapping[str, float], rows: pd.DataFrame, predicted: pd.DataFrame) -> bytes:
    """PNG: the ten features with the most gain; mean actual units and mean p10, p50, p90 by day."""
    by_day = pd.concat([rows[["forecast_on", "label"]], predicted], axis=1).groupby("forecast_on").mean()

    def draw(axes: Axes) -> None:
        axes.plot(by_day.index, by_day["label"], color="black", label="actual")
        for name in ("p10", "p50", "p90"):
            axes.plot(by_day.index, by_day[name], label=name)
        axes.tick_params(axis="x", rotation=45)
        axes.set(ylabel="mean units per series", title="Evaluation window")
        axes.legend()

    return _two_panels(gain, draw)


def _two_panels(gain: Mapping[str, float], draw: Callable[[Axes], None]) -> bytes:
    # The object interface: pyplot would keep global state and pick a screen backend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    top = sorted(gain.items(), key=lambda item: item[1])[-10:]
    left.barh([name for name, _ in top], [value for _, value in top])
    left.set(title="Feature importance (gain)")
    draw(right)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80, metadata={"Software": None})
    return png.getvalue()
