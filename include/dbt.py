"""dbt, in this process, with everything it needs from the settings and the secret store.

``python -m include.dbt build|run|test|docs|parse|compile|list [--as-of D] [--select ...] [more dbt options]``

Prints a short summary and exits 1 when a model or a critical test fails; dbt's own log is
``<home>/dbt/logs/dbt.log`` and its target folder, with the partial parse and the docs site, ``<home>/dbt/target``.
With ``--as-of`` the verdicts of the tests are recorded in ``ops.quality_result``; the rows that a test found lie in
schema ``dbt_tests`` until it passes. ``build`` leaves out the unit tests (they test the code, which does not change at
night); ``test`` runs them. Production is built whole, as of a day: parts are built by ``include.analyst``.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from include import ops
from include.dates import parse_day
from include.ingest import drift
from include.ingest.arguments import NOTHING_TO_DO
from include.ingest.sources import FOLDER as SOURCES
from include.ingest.sources import Entity, sources
from include.settings import ROOT, settings
from include.warehouse import work
from include.warehouse.engine import connect, dsn

PROJECT = ROOT / "dbt_project"
ROLE = "transformer"
COMMANDS = ("build", "run", "test", "docs", "parse", "compile", "list")
WRITES = ("build", "run", "test")
"""Commands that build relations: two at once would drop each other's tables, so they take turns."""

BUILDS = ("build", "run")
"""Commands that take the touched keys and build them."""

WHOLE = ("--full-refresh", "-f", "--fail-fast", "-x", "--threads", "--no-partial-parse")
"""Options that leave a build whole; any other may choose or change what is built."""

PASSED = ("pass", "success", "no-op")
WORDS = {"warn": "warned", "skipped": "skipped"}
"""What a status that is not passed is called in the summary; every other one is FAILED."""


def variables(evolved: Mapping[str, Mapping[str, list[str]]] | None = None) -> dict[str, Any]:
    """The dbt variables: the currency that reports are in, which sources there are, their marketplace, currency,
    country, what they provide and look up, which columns name what their rows change (see
    ``include.ingest.touched``) and the columns that their tables gained (source -> table -> columns, see
    ``include.ingest.drift``).

    Sorted, so that the same YAMLs give the same text and dbt's partial parse stays valid.
    """
    return {
        "reporting_currency": settings().reporting_currency,
        "sources": {
            one.source: {
                "changes": {name: _changes(entity) for name, entity in sorted(one.raw_entities.items())},
                "country": one.country,
                "currency": one.currency,
                "evolved": dict(sorted((evolved or {}).get(one.source, {}).items())),
                "lookups": {name: dict(sorted(lookup)) for name, lookup in sorted(one.lookups.items())},
                "marketplace": one.marketplace,
                "provides": sorted(one.provides),
            }
            for one in sorted(sources(), key=lambda one: one.source)
        },
    }


def _changes(entity: Entity) -> dict[str, Any]:
    """Thing -> the column that names it, its type, and by which other entity's column when not by itself."""
    return {
        thing: {
            "column": change.column,
            "through": dict(sorted(zip(("entity", "column"), change.via, strict=True))) if change.via else None,
            "type": entity.columns[change.column].type,
        }
        for thing, change in sorted(entity.changes.items())
    }


def production_state() -> Path:
    """The folder with the manifest of the newest green night: what an analyst's build is compared with."""
    return settings().home / "dbt" / "production"


def threads(*, by_keys: bool = False) -> int:
    """How many nodes are built at once; ``EMPORIUM_DBT_THREADS``, else two for each processor, 8 at most.

    One more than processors in a build by touched keys, which hardly waits for disks: with more, the longest chain of
    models, which such a build waits for, gets less of a processor.
    """
    processors = os.cpu_count() or 1
    return settings().dbt_threads or min(processors + 1 if by_keys else 2 * processors, 8)


def environment(role: str = ROLE, folder: Path | None = None) -> dict[str, str]:
    """Environment variables that ``dbt_project/profiles.yml`` and dbt itself read; ``folder`` holds target and logs."""
    warehouse = conninfo_to_dict(dsn(role))
    folder = folder or settings().home / "dbt"
    return {
        "EMPORIUM_DBT_HOST": str(warehouse.get("host", "127.0.0.1")),
        "EMPORIUM_DBT_PORT": str(warehouse.get("port", "5432")),
        "EMPORIUM_DBT_DATABASE": str(warehouse["dbname"]),
        "EMPORIUM_DBT_USER": role,
        "EMPORIUM_DBT_SSLMODE": str(warehouse.get("sslmode", "prefer")),
        # The prefix makes dbt keep it out of its logs and artifacts.
        "DBT_ENV_SECRET_PASSWORD": str(warehouse["password"]),
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        # libpq reads it: days are UTC days, and a killed dbt takes its queries with it. Models run side by side anyway:
        # a query that is spread over workers as well takes more of the processors for the same rows.
        "PGOPTIONS": "-c timezone=UTC -c client_connection_check_interval=1s -c max_parallel_workers_per_gather=0"
        # Of 400 commits only the last needs to be on the disk, which says that the build was green, and takes those
        # before it along. A server that is killed before has its work list, and builds it again.
        " -c synchronous_commit=off",
    }


def arguments(
    command: str,
    extra: Sequence[str] = (),
    evolved: Mapping[str, Mapping[str, list[str]]] | None = None,
    *,
    with_unit_tests: bool = False,
) -> list[str]:
    """The dbt command line for ``command``; ``evolved`` as in ``variables``."""
    line = ["docs", "generate", "--static"] if command == "docs" else [command]
    if command == "build" and not with_unit_tests and not any("resource-type" in option for option in extra):
        line += ["--exclude-resource-type", "unit_test"]
    silence = [] if command in ("list", "compile") else ["--log-level", "none", "--log-level-file", "info"]
    return ["--no-use-colors", *silence, *line, "--vars", json.dumps(variables(evolved), sort_keys=True), *extra]


@contextmanager
def turn(role: str = ROLE, lock: str = "emporium.dbt", what: str = "this warehouse") -> Iterator[None]:
    """Wait for another dbt that is building the same; its end, even by a kill, gives us the turn."""
    with connect(role, autocommit=True) as conn:
        row = conn.execute("select pg_try_advisory_lock(hashtext(%s))", (lock,)).fetchone()
        if row and not row[0]:
            print(f"dbt: another dbt is building {what}; waiting for it", flush=True)
            conn.execute("select pg_advisory_lock(hashtext(%s))", (lock,))
        yield


def is_whole(extra: Sequence[str]) -> bool:
    """Whether a build with these options builds everything."""
    return all(option.partition("=")[0] in WHOLE for option in extra if option.startswith("-"))


def refusal(command: str, extra: Sequence[str], as_of: date | None) -> str | None:
    """Why a person may not run this against production; None when they may.

    A part that is rebuilt alone would leave ``core`` half new and the verdict of the last night on it.
    """
    if command == "run" or (command == "build" and not (as_of and is_whole(extra))):
        return (
            "production is built whole, with its tests, as of a day: `python -m include.dbt build --as-of D`. "
            "To build a part into a schema of your own: `make dbt SELECT=...`."
        )
    return None


def run(command: str, extra: Sequence[str] = (), as_of: date | None = None) -> int:
    """Run a dbt command and print its summary; 0 when nothing failed, else 1."""
    os.environ.update(environment())
    # Over a second, in which the database can move the touched keys. Who ends with an error does not wait for it.
    importing = threading.Thread(target=import_module, args=("dbt.cli.main",), daemon=True)
    importing.start()
    started = time.monotonic()
    is_everything = is_whole(extra)
    is_night = command == "build" and as_of is not None and is_everything
    os.environ["EMPORIUM_DBT_AS_OF"] = str(as_of or newest_night(ROLE) or "") if command in WRITES else ""
    with turn() if command in WRITES else nullcontext():
        if is_night and as_of:
            _record_build(as_of, is_green=False)
        evolved = _evolved(command)
        made_of = fingerprint(evolved)
        if command in BUILDS:
            extra = [*extra, *_whole_or_touched(made_of, extra)]
        importing.join()
        keep_connections()
        write_at_once()
        longest_chain_first(settings().home / "dbt" / "target")
        outcome = invoke(arguments(command, extra, evolved))
        results = list(getattr(outcome.result, "results", None) or [])
        if command in WRITES and not outcome.exception:
            forget_failures(ROLE, results, "dbt_tests" if is_night else None)
        if outcome.success and command == "build" and is_everything:
            with connect(ROLE) as conn:
                work.done(conn, made_of)
        if is_night and as_of and outcome.success:
            _save_state()
            _record_build(as_of, is_green=True)
    if outcome.exception is not None:
        print(f"dbt {command}: {outcome.exception}", file=sys.stderr)
        return 1
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
    told = counted(results) if command in WRITES else ""
    verdict = "ok" if outcome.success else "failed"
    print(f"dbt {command}: {verdict}{told} in {time.monotonic() - started:.1f} s", flush=True)
    return 0 if outcome.success else 1


def invoke(line: Sequence[str]) -> Any:
    """The outcome of a dbt command line (a ``dbtRunnerResult``).

    Raises ``KeyboardInterrupt`` when dbt was interrupted; of itself it returns that as an error without a word.
    """
    from dbt.cli.main import dbtRunner

    outcome = dbtRunner().invoke(list(line))
    if isinstance(outcome.exception, KeyboardInterrupt):
        raise outcome.exception
    return outcome


def keep_connections() -> None:
    """Let each thread of dbt keep its connection, as dbt-snowflake's ``reuse_connections`` does.

    dbt-postgres opens one for each model and test. A new server process must log in, read the catalogue and map the
    shared buffers page by page: that took a sixth of a day's processor time at 10 million items. Between two nodes the
    session is made as new (``discard all``: settings, temporary tables, locks).
    """
    import psycopg2
    from dbt.adapters.postgres.connections import PostgresConnectionManager

    def release(self: Any) -> None:
        with self.lock:
            connection = self.get_if_exists()
        if connection is None or connection.state != "open":
            return
        try:
            self.rollback_if_open()
            handle = connection.handle
            handle.rollback()
            handle.autocommit = True
            handle.cursor().execute("discard all")
            handle.autocommit = connection.credentials.autocommit
        except psycopg2.Error:
            self.close(connection)  # the next node opens another

    PostgresConnectionManager.release = release  # type: ignore[method-assign]


def write_at_once() -> None:
    """Let dbt put its artifacts into words at once, not piece by piece: ``json.dump`` does it in Python, and one of the
    processors waits for the manifest before the first model and after the last."""
    from dbt.artifacts.schemas import base
    from dbt.artifacts.schemas.run.v5 import run as results
    from dbt_common.utils.encoding import JSONEncoder

    def write(path: str, data: dict[str, Any]) -> bool:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(data, cls=JSONEncoder), encoding="utf-8")
        return True

    base.write_json = results.write_json = write


def longest_chain_first(target: Path) -> None:
    """Let a free thread of dbt take, of the nodes that may start, the one that the longest chain of others waits for.

    dbt hands all nodes that may start to its threads at once, level by level: what much else waits for is queued behind
    what nothing waits for, and at the end one long model runs alone. A chain is as long as its nodes took in the build
    before (``run_results.json`` in ``target``); a node that was not in it takes the mean.
    """
    import networkx
    from dbt.graph.queue import GraphQueue
    from dbt.task.runnable import GraphRunnableTask

    try:
        results = json.loads((target / "run_results.json").read_text())["results"]
        before = {one["unique_id"]: float(one["execution_time"]) for one in results}
    except (OSError, ValueError, KeyError):
        before = {}
    mean = sum(before.values()) / len(before) if before else 1.0
    hand_over = getattr(GraphRunnableTask._submit, "hand_over", GraphRunnableTask._submit)

    def scores(_: Any, graph: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for node in reversed(list(networkx.topological_sort(graph))):
            found[node] = min((found[later] for later in graph.successors(node)), default=0.0) - before.get(node, mean)
        return found

    def submit(self: Any, pool: Any, args: list[Any], callback: Any) -> None:
        hand_over(self, pool, args, callback)
        queue = self.job_queue
        with queue.some_task_done:
            queue.some_task_done.wait_for(lambda: len(queue.in_progress) < pool.max_threads)

    submit.hand_over = hand_over  # type: ignore[attr-defined]
    GraphQueue._get_scores = scores  # type: ignore[method-assign, assignment]
    GraphRunnableTask._submit = submit  # type: ignore[method-assign]


def fingerprint(evolved: Mapping[str, Mapping[str, list[str]]]) -> str:
    """What a build is made of beside its rows: the models and macros, the sources and the settings.

    Another fingerprint than the newest green build's is a full refresh: what code does to rows is not guessed.
    """
    digest = hashlib.sha256(json.dumps(variables(evolved), sort_keys=True).encode())
    folders = [PROJECT / name for name in ("models", "macros", "seeds")]
    for path in sorted([PROJECT / "dbt_project.yml", *(one for folder in folders for one in folder.rglob("*.*"))]):
        digest.update(f"{path.relative_to(PROJECT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _whole_or_touched(made_of: str, extra: Sequence[str]) -> list[str]:
    """Take the touched keys, and say in a line what is built; the options of dbt for it."""
    with connect(ROLE) as conn:
        n_keys = work.take(conn)
        reason = work.why_everything(conn, made_of)
        is_asked = bool({"--full-refresh", "-f"} & set(extra))
        if reason or is_asked:
            work.begin_everything(conn)
        empty = work.without_rows(conn, {one.source: one.raw_schema for one in sources()}) if is_whole(extra) else []
    is_told = any(option.partition("=")[0] == "--threads" for option in extra)
    side_by_side = [] if is_told else ["--threads", str(threads(by_keys=not (reason or is_asked)))]
    if is_asked:
        return side_by_side
    if reason:
        print(f"dbt: everything is built: {reason}", flush=True)
        return ["--full-refresh", *side_by_side]
    print(f"dbt: {n_keys:,} touched keys are built{_but_for(empty)}", flush=True)
    # By name: for a path dbt looks at all files of the folder, and at all parents of all nodes.
    staging = [selector for source in empty for selector in (f"fqn:staging.{source}", f"source:{source}")]
    # Tests that read other models as well are run.
    left_out = ["--exclude", *staging, "--indirect-selection", "cautious"] if staging else []
    return [*left_out, *side_by_side]


def _but_for(empty: Sequence[str]) -> str:
    return f"; no staging of {', '.join(empty)}, which have no rows" if empty else ""


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


def newest_night(role: str) -> date | None:
    """The business day of the newest build that was green; None before the first."""
    with connect(role) as conn:
        row = conn.execute(
            "select as_of from ops.quality_result where gate = 'warehouse' and rule = 'build_is_green' and is_passed "
            "order by checked_at desc limit 1"
        ).fetchone()
    return row[0] if row else None


def _save_state() -> None:
    """Keep the manifest of a green night where analysts' builds look, complete or not at all."""
    folder = production_state()
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"manifest.{os.getpid()}"
    shutil.copyfile(settings().home / "dbt" / "target" / "manifest.json", beside)
    beside.replace(folder / "manifest.json")


def failing_rows(result: Any) -> str | None:
    """``schema.table`` with the rows that a test found; None when it found none or keeps none."""
    node = result.node
    if str(node.resource_type) != "test" or not result.failures or not node.config.store_failures:
        return None
    return f"{node.schema}.{node.alias}"


def forget_failures(role: str, results: Sequence[Any], schema: str | None = None) -> None:
    """Drop the failing rows of tests that pass now; with ``schema`` every table of it that no failed test just wrote.

    What lies there then is what is wrong now.
    """
    kept = {table for one in results if (table := failing_rows(one))}
    gone = {f"{one.node.schema}.{one.node.alias}" for one in results if str(one.node.resource_type) == "test"} - kept
    with connect(role) as conn:
        there = "select schemaname || '.' || tablename from pg_tables where schemaname = %s"
        gone |= {name for (name,) in conn.execute(there, (schema,)).fetchall()} - kept
        for name in sorted(gone):
            conn.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(*name.split("."))))


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


def counted(results: Sequence[Any]) -> str:
    """``, 2 models, 7 tests``; nothing for no results."""
    counts = Counter(_kind(one) for one in results if _kind(one) != "exposure")
    return "".join(f", {n} {kind}{'s' if n != 1 else ''}" for kind, n in sorted(counts.items()))


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
        if rows := failing_rows(result):
            line += f"\n  rows: select * from {rows}"
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
                observed=_observed(result),
            )
        )
    return found


def _observed(result: Any) -> dict[str, Any]:
    """What dbt said of a test, and where the rows are that it found."""
    return {name: value for name, value in {"message": result.message, "rows": failing_rows(result)}.items() if value}


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
    if reason := refusal(args.command, extra, args.as_of):
        print(f"dbt {args.command}: {reason}", file=sys.stderr)
        return 2
    # dbt keeps nearly all that it makes: to look for what it does not took 0.7 of its 12 CPU seconds.
    gc.set_threshold(100_000)
    try:
        return run(args.command, extra, args.as_of)
    except (psycopg.Error, ValueError, OSError) as error:
        print(f"dbt {args.command}: {str(error).strip()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        rest = "; no query of it is left, and the next one builds the rest" if args.command in BUILDS else ""
        print(f"dbt {args.command}: interrupted{rest}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    code = main()
    # All that dbt made goes with the process: to look through it for garbage once more took 0.6 s.
    gc.freeze()
    sys.exit(code)
