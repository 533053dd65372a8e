"""The analyst's loop: build what changed into a schema of one's own, and nothing else.

``python -m include.analyst [--select ...] [more dbt options]`` (``make dbt SELECT=...``) builds the selection, without
one what changed since the newest green night and what hangs on it, with its tests and unit tests, into ``dev_<user>``.
Whatever is not selected is production's. ``--clean`` (``make dbt-clean``) drops the schema. See docs/add-a-model.md.
"""

from __future__ import annotations

import argparse
import difflib
import getpass
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from include import dbt
from include.ingest import drift
from include.settings import settings
from include.warehouse.engine import connect

ROLE = "analyst"
CHANGED = "state:modified+"
NAME = re.compile("dev_[a-z0-9_]{1,59}")


def schema() -> str:
    """``EMPORIUM_DBT_SCHEMA``, else ``dev_<user of the machine>``. ``ValueError`` when it is no name for one."""
    if chosen := settings().dbt_schema:
        if not NAME.fullmatch(chosen):
            raise ValueError(
                f"EMPORIUM_DBT_SCHEMA is {chosen}: it must be dev_ and then lower-case letters, digits or underscores."
            )
        return chosen
    try:
        user = re.sub("[^a-z0-9]+", "_", getpass.getuser().lower()).strip("_")
    except (OSError, KeyError):  # a container's user without a name
        user = ""
    if not user:
        raise ValueError("This machine's user has no name: set EMPORIUM_DBT_SCHEMA, such as dev_ann.")
    return f"dev_{user}"[:63]


def folder() -> Path:
    """dbt's target folder and logs of this schema."""
    return settings().home / "dbt" / schema()


def build(selection: Sequence[str], extra: Sequence[str] = (), days: int | None = None) -> int:
    """Build ``selection`` and print the summary; 0 when nothing failed. ``days`` makes a sample of the newest days.

    ``ValueError`` with what to do when there is no production to defer to, or nothing to select.
    """
    started = time.monotonic()
    state, name = dbt.production_state(), schema()
    if not (state / "manifest.json").exists():
        raise ValueError("no night has been green in this home yet, so there is nothing to build on: `make run` first.")
    os.environ.update(dbt.environment(ROLE, folder()), EMPORIUM_DBT_SCHEMA=name)
    with connect(ROLE) as conn:
        conn.execute("select ops.make_dev_schema(%s)", (name,))
        evolved = drift.staged(conn)
    os.environ["EMPORIUM_DBT_AS_OF"] = str(dbt.newest_night(ROLE) or "")
    os.environ["EMPORIUM_DBT_DAYS"] = str(days or "")
    options = ["--target", "dev", "--defer", "--state", str(state), "--favor-state", "--full-refresh"]
    if days:
        # A sample lacks most of what production has: tests that compare the two would only say that.
        options += ["--indirect-selection", "cautious"]
    # Unit tests too: here it is the code that changes.
    line = dbt.arguments("build", [*options, "--select", *selection, *extra], evolved, with_unit_tests=True)
    dbt.keep_connections()
    with dbt.turn(ROLE, f"emporium.dbt.{name}", name):
        outcome = dbt.invoke(line)
        results = list(getattr(outcome.result, "results", None) or [])
        dbt.forget_failures(ROLE, results)
    if outcome.exception is not None:
        raise ValueError(plain(str(outcome.exception), state))
    for text in dbt.summary(results, folder() / "target"):
        print(text, file=sys.stderr if text.startswith("FAILED") else sys.stdout)
    verdict = "ok" if outcome.success else "failed"
    print(f"dbt: {verdict} in {name}{dbt.counted(results)} in {time.monotonic() - started:.1f} s", flush=True)
    return 0 if outcome.success else 1


def plain(message: str, state: Path) -> str:
    """dbt's message; a sentence for a selection that finds nothing."""
    missed = re.search("The selection criterion '(.+)' does not match any", message)
    if not missed:
        return message
    if missed[1] == CHANGED:
        return "nothing has changed since the newest green night: name a model, as in `make dbt SELECT=fact_order+`."
    nodes = json.loads((state / "manifest.json").read_text())["nodes"].values()
    names = [node["name"] for node in nodes if node["resource_type"] == "model"]
    near = difflib.get_close_matches(re.sub(r"^\d*\+|\+\d*$|^@", "", missed[1]), names)
    return (
        f"SELECT={missed[1]} finds nothing. "
        + (f"Is it {' or '.join(near)}? " if near else "")
        + "It takes what dbt selects by: fact_order, +fact_order+, tag:mart, path:models/marts/sales."
    )


def clean() -> str:
    """Drop the schema with everything in it, and dbt's folder of it; returns the schema's name."""
    name = schema()
    with dbt.turn(ROLE, f"emporium.dbt.{name}", name), connect(ROLE) as conn:
        conn.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(name)))
    shutil.rmtree(folder(), ignore_errors=True)
    return name


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m include.analyst",
        description="Build what changed into a schema of your own. Other options go to dbt as they are.",
    )
    parser.add_argument("--select", default=CHANGED, help=f"models, as dbt selects them; default {CHANGED}")
    parser.add_argument("--days", type=int, help="of models built by touched keys, only the orders of so many days")
    parser.add_argument("--clean", action="store_true", help="drop the schema instead")
    args, extra = parser.parse_known_args(argv)
    try:
        if args.clean:
            print(f"{clean()} is dropped")
            return 0
        return build(args.select.split(), extra, args.days)
    except (psycopg.Error, ValueError, OSError) as error:
        print(f"dbt: {str(error).strip()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dbt: interrupted; the same command again builds it", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
