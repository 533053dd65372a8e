"""The operations tables: what was loaded, what was checked, who may publish."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal

import psycopg

from include.warehouse.engine import connect

Severity = Literal["critical", "warning"]


def run_id() -> str:
    """Who is writing: the Airflow run and try, or the shell."""
    run = os.environ.get("AIRFLOW_CTX_DAG_RUN_ID")
    if run:
        return f"{os.environ.get('AIRFLOW_CTX_DAG_ID')}/{run}/{os.environ.get('AIRFLOW_CTX_TRY_NUMBER', '1')}"
    return f"shell/{os.getpid()}"


@dataclass(frozen=True)
class LoadCount:
    """What became of an entity's rows of one business day. ``n_in = n_loaded + n_duplicate + n_quarantined``."""

    source: str
    entity: str
    partition_on: date
    n_in: int
    n_loaded: int
    n_duplicate: int
    n_quarantined: int
    checksum: str


def record_loads(conn: psycopg.Connection, counts: Iterable[LoadCount]) -> None:
    """Write ``ops.load_audit`` rows in the caller's transaction, so that counts and rows commit as one.

    A count that does not add up violates ``every_row_counted`` and fails the load.
    """
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.load_audit
              (run_id, source, entity, partition_on, n_in, n_loaded, n_duplicate, n_quarantined, checksum, loaded_at)
            values (%(run_id)s, %(source)s, %(entity)s, %(partition_on)s, %(n_in)s, %(n_loaded)s, %(n_duplicate)s,
                    %(n_quarantined)s, %(checksum)s, now())
            on conflict (source, entity, partition_on) do update set
              run_id = excluded.run_id, n_in = excluded.n_in, n_loaded = excluded.n_loaded,
              n_duplicate = excluded.n_duplicate, n_quarantined = excluded.n_quarantined,
              checksum = excluded.checksum, loaded_at = excluded.loaded_at
            """,
            [{"run_id": run_id(), **asdict(count)} for count in counts],
        )


@dataclass(frozen=True)
class Check:
    """One rule's verdict. ``target`` is a table or entity, ``rule`` reads like a sentence without spaces."""

    gate: str
    target: str
    as_of: date
    rule: str
    severity: Severity
    is_passed: bool
    n_checked: int
    n_failed: int
    observed: dict[str, Any] = field(default_factory=dict)


def record_checks(conn: psycopg.Connection, checks: Iterable[Check]) -> None:
    """Write ``ops.quality_result``, replacing earlier verdicts of the same (gate, target, day, rule)."""
    rows = [
        {"run_id": run_id(), **asdict(check), "observed": json.dumps(check.observed, default=str)} for check in checks
    ]
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.quality_result
              (run_id, gate, target, as_of, rule, severity, is_passed, n_checked, n_failed, observed, checked_at)
            values (%(run_id)s, %(gate)s, %(target)s, %(as_of)s, %(rule)s, %(severity)s, %(is_passed)s,
                    %(n_checked)s, %(n_failed)s, %(observed)s, now())
            on conflict (gate, target, as_of, rule) do update set
              run_id = excluded.run_id, severity = excluded.severity, is_passed = excluded.is_passed,
              n_checked = excluded.n_checked, n_failed = excluded.n_failed, observed = excluded.observed,
              checked_at = excluded.checked_at
            """,
            rows,
        )


def begin(target: str, as_of: date, role: str = "scorer") -> int:
    """A fencing token for writing ``target`` as of a day. A later token outdates all earlier ones."""
    with connect(role) as conn:
        row = conn.execute(
            "insert into ops.run_ledger (target, as_of, run_id) values (%s, %s, %s) returning token",
            (target, as_of, run_id()),
        ).fetchone()
        assert row is not None
        return row[0]
