"""What dbt built, seen from outside: may it be read, and is it whole."""

from __future__ import annotations

import psycopg


class NotGreenError(Exception):
    """The newest dbt build failed or was cut off: what is in ``core`` must not go any further."""


def hold_green_core(conn: psycopg.Connection) -> None:
    """Keep dbt from rebuilding ``core``, and check that its newest build is green.

    The hold ends with the transaction, or with the connection when it is in autocommit mode. Raises
    ``NotGreenError``. A waiting dbt prints that it waits.
    """
    lock = "pg_advisory_lock_shared" if conn.autocommit else "pg_advisory_xact_lock_shared"
    conn.execute(f"select {lock}(hashtext('emporium.dbt'))")
    row = conn.execute(
        "select is_passed, as_of from ops.quality_result where gate = 'warehouse' and rule = 'build_is_green' "
        "order by checked_at desc limit 1"
    ).fetchone()
    if row is None or not row[0]:
        raise NotGreenError(
            "The newest dbt build is not green"
            + (f" (as of {row[1]})" if row else "")
            + ": run `python -m include.dbt build --as-of D` first."
        )
