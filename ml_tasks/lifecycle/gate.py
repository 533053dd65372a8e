"""Who is champion as of D: the decision, and the table that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date

import numpy as np
import psycopg
from psycopg.rows import class_row

from ml_tasks.lifecycle.evaluate import Comparison, paired_bootstrap

NAIVE = "naive:"
NAIVE_VERSION = "0"


@dataclass(frozen=True)
class Decision:
    """A row of ``ops.model_decision`` (without ``decided_at``)."""

    use_case: str
    as_of: date
    champion_name: str
    champion_version: str
    champion_run_id: str | None
    challenger_version: str | None
    challenger_run_id: str | None
    is_promoted: bool
    metric: str
    challenger_value: float | None
    incumbent_value: float | None
    baseline_name: str
    baseline_value: float | None
    ci_low: float | None
    ci_high: float | None
    data_fingerprint: str
    reason: str

    @property
    def naive_rule(self) -> str | None:
        """The naive rule that is champion, None when a model is."""
        return self.champion_name.removeprefix(NAIVE) if self.champion_name.startswith(NAIVE) else None


@dataclass(frozen=True)
class Verdict:
    """``champion`` is 'challenger', 'incumbent' or a naive rule's name as ``naive:<rule>``."""

    champion: str
    baseline: str
    interval: Comparison | None
    reason: str


def decide(
    baselines: Mapping[str, np.ndarray],
    challenger: np.ndarray | None,
    incumbent: np.ndarray | None,
    incumbent_rule: str | None,
    cluster: np.ndarray,
    seed: int,
    min_entities: int = 30,
    no_challenger: str = "there was too little history to train a challenger",
) -> Verdict:
    """Compare losses per row (arrays over the same rows) and name the champion.

    ``incumbent``: losses of the reigning model, None when a naive rule reigns (``incumbent_rule``), or nobody.
    A model is promoted only when the 95% interval of its loss minus the best naive rule's, and minus the
    reigning model's, lies below zero. A reigning model that is worse than the naive rule beyond chance is
    dismissed. A reigning naive rule gives way to another rule only on the same terms.
    """
    best = min(sorted(baselines), key=lambda name: float(baselines[name].mean()))
    naive = baselines[best]
    n_entities = int(cluster.max()) + 1

    def versus(loss_a: np.ndarray, loss_b: np.ndarray) -> Comparison:
        return paired_bootstrap(loss_a, loss_b, cluster, seed)

    notes = []
    interval = None
    if challenger is None:
        notes.append(f"No challenger: {no_challenger}.")
    elif n_entities < min_entities:
        interval = versus(challenger, naive)
        notes.append(f"Challenger not promoted: {n_entities} entities to evaluate on, {min_entities} are needed.")
    else:
        to_naive = versus(challenger, naive)
        to_incumbent = versus(challenger, incumbent) if incumbent is not None else None
        interval = to_incumbent or to_naive
        against_naive = f"naive rule {best}: {to_naive}"
        against = against_naive + (f"; incumbent: {to_incumbent}" if to_incumbent else "")
        if to_naive.is_better and (to_incumbent is None or to_incumbent.is_better):
            return Verdict("challenger", best, interval, f"Challenger promoted. Its loss against the {against}.")
        lost_to = "the naive rule" if not to_naive.is_better else "the incumbent"
        notes.append(f"Challenger not promoted: it does not beat {lost_to} beyond chance. Against the {against}.")

    if incumbent is not None:
        held = versus(incumbent, naive)
        if held.is_worse and n_entities >= min_entities:
            notes.append(f"Incumbent dismissed: worse than the naive rule {best} ({held}).")
            return Verdict(NAIVE + best, best, interval, " ".join(notes))
        notes.append("The incumbent stays.")
        return Verdict("incumbent", best, interval, " ".join(notes))
    if incumbent_rule is not None and incumbent_rule != best and incumbent_rule in baselines:
        switch = versus(naive, baselines[incumbent_rule])
        if not switch.is_better:
            notes.append(f"The naive rule {incumbent_rule} stays: {best} is not better beyond chance ({switch}).")
            return Verdict(NAIVE + incumbent_rule, best, interval, " ".join(notes))
    notes.append(f"The naive rule {best} is champion.")
    return Verdict(NAIVE + best, best, interval, " ".join(notes))


_COLUMNS = [field.name for field in fields(Decision)]


def decision_of(conn: psycopg.Connection, use_case: str, as_of: date) -> Decision | None:
    """The decision as of D, None when D was not trained."""
    return _one(conn, "use_case = %s and as_of = %s", use_case, as_of)


def decision_before(conn: psycopg.Connection, use_case: str, as_of: date) -> Decision | None:
    """The newest decision before D: its champion is the incumbent for D."""
    return _one(conn, "use_case = %s and as_of < %s", use_case, as_of)


def is_newest(conn: psycopg.Connection, decision: Decision) -> bool:
    """Whether no later day has a decision."""
    row = conn.execute(
        "select not exists (select from ops.model_decision where use_case = %s and as_of > %s)",
        (decision.use_case, decision.as_of),
    ).fetchone()
    assert row is not None
    return bool(row[0])


def _one(conn: psycopg.Connection, where: str, *values) -> Decision | None:
    with conn.cursor(row_factory=class_row(Decision)) as cursor:
        return cursor.execute(
            f"select {', '.join(_COLUMNS)} from ops.model_decision where {where} order by as_of desc limit 1", values
        ).fetchone()


def record(conn: psycopg.Connection, decision: Decision) -> bool:
    """Write the decision; an equal one keeps its ``decided_at``. Whether a row was added or changed."""
    keys = ("use_case", "as_of")
    rest = [name for name in _COLUMNS if name not in keys]
    done = conn.execute(
        f"""
        insert into ops.model_decision as old ({", ".join(_COLUMNS)})
        values ({", ".join(f"%({name})s" for name in _COLUMNS)})
        on conflict (use_case, as_of) do update set
          {", ".join(f"{name} = excluded.{name}" for name in rest)}, decided_at = now()
        where ({", ".join(f"old.{name}" for name in rest)})
          is distinct from ({", ".join(f"excluded.{name}" for name in rest)})
        """,
        {name: getattr(decision, name) for name in _COLUMNS},
    )
    return done.rowcount > 0
