"""A thin wrapper around Great Expectations: named rules on a pandas frame in, verdicts with row positions out.

Importing this module imports Great Expectations (about 5 s), so only gates import it.

    rules = [Rule("p50_is_positive", "critical", gxe.ExpectColumnValuesToBeBetween(column="p50", min_value=0))]
    verdicts = validate(frame, rules, gate="predictions", target="demand_forecast", as_of=day, keys=["product_id"])
    sys.exit(conclude(verdicts, role="scorer"))
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from include.ops import Check, Severity, record_checks
from include.warehouse.engine import connect

# It reads this at import: no telemetry leaves the machine.
os.environ["GX_ANALYTICS_ENABLED"] = "false"
for _name in ("great_expectations", "great_expectations.core", "posthog"):
    logging.getLogger(_name).setLevel(logging.WARNING)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.execution_engine import pandas_execution_engine

# It takes a fingerprint of every frame twice, which nothing here reads and which took as long as the rules.
pandas_execution_engine.hash_pandas_dataframe = lambda _: ""

__all__ = ["Rule", "Verdict", "conclude", "gxe", "message", "validate"]

N_EXAMPLES = 5


@dataclass(frozen=True)
class Rule:
    """A named expectation. ``critical`` blocks, ``warning`` is recorded. Names are unique within a suite."""

    name: str
    severity: Severity
    expectation: Any


@dataclass(frozen=True)
class Verdict:
    """A rule's check and the positions (0-based) of the frame's rows that broke it.

    Rules about the whole table (row counts, column sets, sums) break no single row: ``rows`` is empty.
    """

    check: Check
    rows: np.ndarray = field(repr=False)


def validate(
    frame: pd.DataFrame,
    rules: Sequence[Rule],
    *,
    gate: str,
    target: str,
    as_of: date,
    keys: Sequence[str] = (),
) -> list[Verdict]:
    """Check ``frame`` against ``rules``; one verdict per rule, in the order given.

    The values of ``keys`` of the first rows that broke a rule go into the check's ``observed``. A rule that
    Great Expectations cannot evaluate (a missing column, values it cannot compare) counts as broken, with the
    error in ``observed``. Nulls break only the rules about nulls.
    """
    names = [rule.name for rule in rules]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"Rules of {target} share a name: {', '.join(sorted(twice))}.")
    if not rules:
        return []
    # A default index makes Great Expectations report positions.
    results = _results(frame.reset_index(drop=True), rules)
    return [_verdict(rule, results[rule.name], frame, gate, target, as_of, keys) for rule in rules]


def _results(frame: pd.DataFrame, rules: Sequence[Rule]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {  # type: ignore[assignment]
            "globally": False,
            "metric_calculations": False,
        }
        batch = (
            context.data_sources.add_pandas("frame")
            .add_dataframe_asset("frame")
            .add_batch_definition_whole_dataframe("frame")
            .get_batch({"dataframe": frame})
        )
        expectations = []
        for rule in rules:
            expectation = rule.expectation.model_copy() if hasattr(rule.expectation, "model_copy") else rule.expectation
            expectation.meta = {**(expectation.meta or {}), "rule": rule.name}
            expectations.append(expectation)
        result = batch.validate(
            gx.ExpectationSuite(name="rules", expectations=expectations),
            result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
        )
    configured = [(one.expectation_config, one) for one in result.results]
    return {config.meta["rule"]: one for config, one in configured if config is not None and config.meta}


def _verdict(
    rule: Rule, result: Any, frame: pd.DataFrame, gate: str, target: str, as_of: date, keys: Sequence[str]
) -> Verdict:
    details = result.result or {}
    rows = np.array(sorted(details.get("unexpected_index_list") or []), dtype="int64")
    is_passed = bool(result.success)
    observed: dict[str, Any] = {}
    if error := _error(result.exception_info):
        is_passed, observed["error"] = False, error
    elif "observed_value" in details:
        observed["observed"] = _plain(details["observed_value"])
    if len(rows) and keys:
        observed["first"] = frame.iloc[rows[:N_EXAMPLES]][list(keys)].astype(str).to_dict("records")
    n_failed = len(rows) if len(rows) else int(details.get("unexpected_count") or (0 if is_passed else 1))
    check = Check(gate, target, as_of, rule.name, rule.severity, is_passed, len(frame), n_failed, observed)
    return Verdict(check, rows)


def _error(info: Any) -> str | None:
    """The exception's message; Great Expectations nests it per metric where several were computed."""
    if not info:
        return None
    nested = [info] if "raised_exception" in info else list(info.values())
    for one in nested:
        if isinstance(one, dict) and one.get("raised_exception"):
            return str(one.get("exception_message"))[:500]
    return None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def message(check: Check) -> str:
    """A broken check in one line: target, day, rule, counts, first offending keys."""
    text = f"{check.target} as of {check.as_of}: {check.rule} is broken by {check.n_failed} of {check.n_checked} rows"
    if "error" in check.observed:
        text += f" ({check.observed['error']})"
    elif "observed" in check.observed:
        text += f" (observed {check.observed['observed']})"
    if first := check.observed.get("first"):
        text += "; first: " + "; ".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in first)
    return text


def conclude(verdicts: Iterable[Verdict | Check], *, role: str) -> int:
    """Record all checks as ``role`` and say what broke; 1 when a critical rule is broken, else 0."""
    checks = [one.check if isinstance(one, Verdict) else one for one in verdicts]
    with connect(role) as conn:
        record_checks(conn, checks)
    code = 0
    for check in checks:
        if check.is_passed:
            continue
        is_critical = check.severity == "critical"
        print(("" if is_critical else "warning: ") + message(check), file=sys.stderr)
        code = 1 if is_critical else code
    return code
