"""Train as of D: challenger against naive rules and the incumbent on a window none of them learned from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np

from include.warehouse.engine import connect
from ml_tasks.lifecycle import dataset, register
from ml_tasks.lifecycle.card import model_card
from ml_tasks.lifecycle.evaluate import clusters
from ml_tasks.lifecycle.gate import (
    NAIVE,
    NAIVE_VERSION,
    Decision,
    Verdict,
    decide,
    decision_before,
    is_newest,
    record,
)
from ml_tasks.lifecycle.progress import step
from ml_tasks.lifecycle.usecase import Context, Sample, UseCase

# A decision, and what writes the challenger's card when told whether the recorded decision changed.
Decided = tuple[Decision, Callable[[bool], None]]


def train(use_case: UseCase, as_of: date) -> Decision:
    """Make and record the decision of the use case as of D; a rerun makes the same one and the same version.

    Two runs of one use case take turns (advisory lock), so a challenger is never registered twice.
    """
    ctx = dataset.context(use_case, as_of)
    with connect("scorer", autocommit=True) as conn:
        conn.execute("select pg_advisory_lock(hashtext(%s))", (f"emporium.train.{use_case.name}",))
        with step(f"{use_case.name}: read the lake") as notes:
            frames = dataset.read_frames(use_case, ctx)
            notes |= {name: len(frame) for name, frame in frames.items()}
        with step(f"{use_case.name}: build rows") as notes:
            sample = use_case.evaluation(frames, ctx)
            if sample is not None:
                notes |= {"training": len(sample.past), "evaluation": len(sample.rows), "cutoff": str(sample.cutoff)}
        incumbent = decision_before(conn, use_case.name, as_of)
        decision, write_card = _decide(use_case, ctx, sample, incumbent)
        with conn.transaction():  # a run killed before its card is written has decided nothing
            write_card(record(conn, decision))
        if is_newest(conn, decision):
            register.point_alias(use_case, None if decision.naive_rule else decision.champion_version)
    print(f"{use_case.name}: champion {decision.champion_name} {decision.champion_version}. {decision.reason}")
    return decision


def _decide(use_case: UseCase, ctx: Context, sample: Sample | None, before: Decision | None) -> Decided:
    fingerprint = dataset.fingerprint(use_case, sample, ctx)
    if sample is None or sample.rows.empty:
        return _without_evaluation(use_case, ctx, before, fingerprint), lambda is_changed: None

    rows = sample.rows
    challenger, is_new = _challenger(use_case, ctx, sample, fingerprint)
    reigning, outdated = None, ""
    if before is not None and before.naive_rule is None:
        with step(f"{use_case.name}: load the incumbent {before.champion_name} {before.champion_version}"):
            reigning = register.load(before.champion_name, before.champion_version)
        if reigning.code_version != str(use_case.version):
            outdated = (
                f"The incumbent {before.champion_name} {before.champion_version} is of code version "
                f"{reigning.code_version or 'unknown'}, which code version {use_case.version} cannot run. "
            )
            reigning = None

    with step(f"{use_case.name}: evaluate") as notes:
        said = {NAIVE + name: rule(sample) for name, rule in use_case.baselines.items()}
        if reigning is not None:
            said["incumbent"] = use_case.predict(reigning.files, sample)
        if challenger is not None:
            said["challenger"] = use_case.predict(challenger.files, sample)
        losses = {who: np.asarray(use_case.loss(rows, predicted), float) for who, predicted in said.items()}
        metrics = {who: use_case.metrics(rows, predicted) for who, predicted in said.items()}
        verdict = decide(
            {name: losses[NAIVE + name] for name in use_case.baselines},
            losses.get("challenger"),
            losses.get("incumbent"),
            before.naive_rule if before else None,
            clusters(rows, use_case.entity),
            ctx.seed,
            use_case.min_entities,
        )
        means = {who: float(values.mean()) for who, values in losses.items()}
        notes |= {who: f"{use_case.metric} {value:.4g}" for who, value in sorted(means.items())}

    name, version, run_id = _champion(use_case, verdict, challenger, before)
    decision = Decision(
        use_case=use_case.name,
        as_of=ctx.as_of,
        champion_name=name,
        champion_version=version,
        champion_run_id=run_id,
        challenger_version=challenger.version if challenger else None,
        challenger_run_id=challenger.run_id if challenger else None,
        is_promoted=verdict.champion == "challenger",
        metric=use_case.metric,
        challenger_value=means.get("challenger"),
        incumbent_value=means.get("incumbent" if reigning else before.champion_name) if before else None,
        baseline_name=NAIVE + verdict.baseline,
        baseline_value=means[NAIVE + verdict.baseline],
        ci_low=verdict.interval.low if verdict.interval else None,
        ci_high=verdict.interval.high if verdict.interval else None,
        data_fingerprint=fingerprint,
        reason=outdated + verdict.reason,
    )

    def write_card(is_changed: bool) -> None:
        if challenger is None or not (is_new or is_changed or not register.has_card(challenger)):
            return
        with step(f"{use_case.name}: model card"):
            picture = (
                use_case.picture(rows, said["challenger"], challenger.files) if use_case.picture is not None else None
            )
            card = model_card(use_case, ctx, sample, decision, metrics, picture is not None)
            register.attach(challenger, card, metrics["challenger"], picture)

    return decision, write_card


def _challenger(
    use_case: UseCase, ctx: Context, sample: Sample, fingerprint: str
) -> tuple[register.Version | None, bool]:
    """The challenger and whether this run made it."""
    found = register.find(use_case, ctx, fingerprint)
    if found is not None:
        print(f"{use_case.name}: challenger is version {found.version} of an earlier run of {ctx.as_of}", flush=True)
        return found, False
    with step(f"{use_case.name}: fit the challenger") as notes:
        files = use_case.fit(sample, ctx)
        notes["files"] = len(files) if files else 0
    if files is None:
        return None, False
    with step(f"{use_case.name}: register the challenger") as notes:
        facts = {"evaluation_cutoff": str(sample.cutoff), "training_rows": len(sample.past)}
        version = register.register(use_case, ctx, fingerprint, files, facts)
        notes["version"] = version.version
    return version, True


def _champion(
    use_case: UseCase, verdict: Verdict, challenger: register.Version | None, before: Decision | None
) -> tuple[str, str, str | None]:
    if verdict.champion == "challenger":
        assert challenger is not None
        return use_case.model, challenger.version, challenger.run_id
    if verdict.champion == "incumbent":
        assert before is not None
        return before.champion_name, before.champion_version, before.champion_run_id
    return verdict.champion, NAIVE_VERSION, None


def _without_evaluation(use_case: UseCase, ctx: Context, before: Decision | None, fingerprint: str) -> Decision:
    """Too little history to measure anything: who reigns goes on, else the default naive rule."""
    rule = NAIVE + use_case.default_baseline
    return Decision(
        use_case=use_case.name,
        as_of=ctx.as_of,
        champion_name=before.champion_name if before else rule,
        champion_version=before.champion_version if before else NAIVE_VERSION,
        champion_run_id=before.champion_run_id if before else None,
        challenger_version=None,
        challenger_run_id=None,
        is_promoted=False,
        metric=use_case.metric,
        challenger_value=None,
        incumbent_value=None,
        baseline_name=rule,
        baseline_value=None,
        ci_low=None,
        ci_high=None,
        data_fingerprint=fingerprint,
        reason="Too little history for an evaluation window; "
        + ("the incumbent stays." if before else f"the naive rule {use_case.default_baseline} is champion."),
    )
