"""dbt, in this process, with everything it needs from the settings and the secret store.

``python -m include.dbt build|run|test|docs|parse|compile|list [--as-of D] [--select ...] [more dbt options]``

Prints a short summary and exits 1 when a model or a critical test fails; dbt's own log is
``<home>/dbt/logs/dbt.log`` and its target folder, with the partial parse and the docs site, ``<home>/dbt/target``.
With ``--as-of`` the verdicts of the tests are recorded in ``ops.quality_result``. ``build`` leaves out the unit
tests (they test the code, which does not change at night); ``test`` runs them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from include import ops
from include.dates import parse_day
from include.ingest import drift
from include.ingest.arguments import NOTHING_TO_DO
from include.ingest.sources import FOLDER as SOURCES
from include.ingest.sources import sources
from include.settings import ROOT, settings
from include.warehouse.engine import connect, dsn

PROJECT = ROOT / "dbt_project"
ROLE = "transformer"
COMMANDS = ("build", "run", "test", "docs", "parse", "compile", "list")
WRITES = ("build", "run", "test")
"""Commands that build relations: two at once would drop each other's tables, so they take turns."""

PASSED = ("pass", "success", "no-op")
WORDS = {"warn": "warned", "skipped": "skipped"}
"""What a status that is not passed is called in the summary; every other one is FAILED."""


def variables(evolved: Mapping[str, Mapping[str, list[str]]] | None = None) -> dict[str, Any]:
    """The dbt variables: which sources there are, their marketplace, currency, what they provide and the columns that
    their tables gained (source -> table -> columns, see ``include.ingest.drift``).

    Sorted, so that the same YAMLs give the same text and dbt's partial parse stays valid.
    """
    return {
        "sources": {
            one.source: {
                "currency": one.currency,
                "evolved": dict(sorted((evolved or {}).get(one.source, {}).items())),
                "marketplace": one.marketplace,
                "provides": sorted(one.provides),
            }
            for one in sorted(sources(), key=lambda one: one.source)
        }
    }


def environment() -> dict[str, str]:
    """Environment variables that ``dbt_project/profiles.yml`` and dbt itself read."""
    warehouse = conninfo_to_dict(dsn(ROLE))
    folder = settings().home / "dbt"
    return {
        "EMPORIUM_DBT_HOST": str(warehouse.get("host", "127.0.0.1")),
        "EMPORIUM_DBT_PORT": str(warehouse.get("port", "5432")),
        "EMPORIUM_DBT_DATABASE": str(warehouse["dbname"]),
        "EMPORIUM_DBT_USER": ROLE,
        "EMPORIUM_DBT_SSLMODE": str(warehouse.get("sslmode", "prefer")),
        # The prefix makes dbt keep it out of its logs and artifacts.
        "DBT_ENV_SECRET_PASSWORD": str(warehouse["password"]),
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        # libpq reads it: days are UTC days, and a killed dbt takes its queries with it.
        "PGOPTIONS": "-c timezone=UTC -c client_connection_check_interval=1s",
    }


def arguments(
    command: str, extra: Sequence[str] = (), evolved: Mapping[str, Mapping[str, list[str]]] | None = None
) -> list[str]:
    """The dbt command line for ``command``; ``evolved`` as in ``variables``."""
    line = ["docs", "generate", "--static"] if command == "docs" else [command]
    if command == "build" and not any("resource-type" in option for option in extra):
        line += ["--exclude-resource-type", "unit_test"]
    silence = [] if command in ("list", "compile") else ["--log-level", "none", "--log-level-file", "debug"]
    return ["--no-use-colors", *silence, *line, "--vars", json.dumps(variables(evolved), sort_keys=True), *extra]


@contextmanager
def turn() -> Iterator[None]:
    """Wait for another dbt that is building this warehouse; its end, even by a kill, gives us the turn."""
    with connect(ROLE, autocommit=True) as conn:
        row = conn.execute("select pg_try_advisory_lock(hashtext('emporium.dbt'))").fetchone()
        if row and not row[0]:
            print("dbt: another dbt is building this warehouse; waiting for it", flush=True)
            conn.execute("select pg_advisory_lock(hashtext('emporium.dbt'))")
        yield


def run(command: str, extra: Sequence[str] = (), as_of: date | None = None) -> int:
    """Run a dbt command and print its summary; 0 when nothing failed, else 1."""
    os.environ.update(environment())
    from dbt.cli.main import dbtRunner  # two seconds of import that `--help` need not pay

    started = time.monotonic()
    is_night = command == "build" and as_of is not None and not extra
    with turn() if command in WRITES else nullcontext():
        if is_night and as_of:
            _record_build(as_of, is_green=False)
        outcome = dbtRunner().invoke(arguments(command, extra, _evolved(command)))
        if is_night and as_of and outcome.success:
            _record_build(as_of, is_green=True)
    if outcome.exception is not None:
        print(f"dbt {command}: {outcome.exception}", file=sys.stderr)
        return 1
    results = list(getattr(outcome.result, "results", None) or [])
    if command in WRITES:
        for line in summary(results, settings().home / "dbt" / "target"):
            print(line, file=sys.stderr if line.startswith("FAILED") else sys.stdout)
        if as_of:
            with connect(ROLE) as conn:
                if is_night:
                    # A test that was renamed or removed since must not be remembered as failed.
                    conn.execute(
                        "delete from ops.quality_result where gate = 'warehouse' and as_of = %s and target <> 'core'",
                        (as_of,),
                    )
                ops.record_checks(conn, checks(results, as_of))
    if command == "docs" and outcome.success:
        print(f"docs: {_serve_docs()}")
    counts = Counter(_kind(one) for one in results if _kind(one) != "exposure") if command in WRITES else {}
    what = ", ".join(f"{n} {kind}{'s' if n != 1 else ''}" for kind, n in sorted(counts.items()))
    verdict = "ok" if outcome.success else "failed"
    print(f"dbt {command}: {verdict}{', ' + what if what else ''} in {time.monotonic() - started:.1f} s", flush=True)
    return 0 if outcome.success else 1


def _evolved(command: str) -> dict[str, dict[str, list[str]]]:
    """Columns that raw tables gained by evolution; what only parses needs no database."""
    if command in ("parse", "list"):
        return {}
    with connect(ROLE) as conn:
        return drift.staged(conn)


def _record_build(as_of: date, is_green: bool) -> None:
    """Whether all of core is built and tested: what publishing and exporting ask for (``include.warehouse.core``)."""
    with connect(ROLE) as conn:
        check = ops.Check("warehouse", "core", as_of, "build_is_green", "critical", is_green, 1, int(not is_green))
        ops.record_checks(conn, [check])


def docs_site() -> Path:
    """The page that the docs service serves."""
    return settings().home / "docs" / "index.html"


def docs_fingerprint() -> str:
    """Changes when a model, a test, a description or a source's YAML does."""
    files = sorted(path for folder in (PROJECT, SOURCES) for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        if not {"target", "logs"} & set(path.relative_to(ROOT).parts):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _serve_docs() -> Path:
    """Put the generated page in place, complete or not at all."""
    site = docs_site()
    site.parent.mkdir(parents=True, exist_ok=True)
    beside = site.with_suffix(f".{os.getpid()}")
    shutil.copyfile(settings().home / "dbt" / "target" / "static_index.html", beside)
    beside.replace(site)
    site.with_name("fingerprint").write_text(docs_fingerprint())
    return site


def _docs_are_current() -> bool:
    mark = docs_site().with_name("fingerprint")
    return docs_site().exists() and mark.exists() and mark.read_text() == docs_fingerprint()


def _kind(result: Any) -> str:
    return str(result.node.resource_type).replace("_", " ")


def summary(results: Sequence[Any], target: Path) -> list[str]:
    """Lines about what did not pass, failures first, each with the SQL to run by hand; then the slowest models."""
    order = ["FAILED", "warned", "skipped"]
    found = []
    for result in results:
        status = str(result.status)
        if status in PASSED:
            continue
        word = WORDS.get(status, "FAILED")
        message = " ".join(str(result.message or "").split())
        line = f"{word} {_kind(result)} {result.node.name}" + (f": {message}" if message else "")
        compiled = getattr(result.node, "compiled_path", None)
        if word != "skipped" and compiled:
            line += f"\n  {target.parent / compiled if not Path(compiled).is_absolute() else compiled}"
        found.append((order.index(word), line))
    lines = [line for _, line in sorted(found, key=lambda pair: pair[0])]
    models = sorted((one for one in results if _kind(one) == "model"), key=lambda one: -one.execution_time)
    if models:
        lines.append("slowest: " + ", ".join(f"{one.node.name} {one.execution_time:.1f} s" for one in models[:3]))
    return lines


def checks(results: Sequence[Any], as_of: date) -> list[ops.Check]:
    """The tests' verdicts as checks of gate ``warehouse``; a skipped test has none."""
    found = []
    for result in results:
        node, status = result.node, str(result.status)
        if str(node.resource_type) != "test" or status == "skipped":
            continue
        attached = getattr(node, "attached_node", None)
        found.append(
            ops.Check(
                gate="warehouse",
                target=attached.split(".")[-1] if attached else "core",
                as_of=as_of,
                rule=node.name,
                severity="warning" if str(node.config.severity).lower() == "warn" else "critical",
                is_passed=status in PASSED,
                n_checked=0,
                n_failed=int(result.failures or 0),
                observed={"message": result.message} if result.message else {},
            )
        )
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m include.dbt",
        description="Build, test and document the warehouse's models. Other options go to dbt as they are.",
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--as-of", type=parse_day, help="record the tests' verdicts for this business day")
    parser.add_argument("--if-changed", action="store_true", help="docs: exit 99 when the site is up to date")
    args, extra = parser.parse_known_args(argv)
    if args.if_changed and _docs_are_current():
        print(f"docs: {docs_site()} is up to date")
        return NOTHING_TO_DO
    if args.command == "docs" and extra[:1] == ["generate"]:
        extra = extra[1:]
    try:
        return run(args.command, extra, args.as_of)
    except (psycopg.Error, ValueError, OSError) as error:
        print(f"dbt {args.command}: {str(error).strip()}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
