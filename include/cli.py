"""``./emporium``: the command line. Every command can be run by hand, in Airflow or from ``make``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from include.dates import parse_day
from include.settings import ROOT, settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
# A log has no width of its own: wide enough that a table keeps one line a row.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)

Day = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD")]


def _day(text: str | None) -> date | None:
    if not text:
        return None
    try:
        return parse_day(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _fail(message: object) -> typer.Exit:
    Console(stderr=True, highlight=False, soft_wrap=True).print(str(message), style="red", markup=False)
    return typer.Exit(1)


def _known_errors() -> tuple[type[Exception], ...]:
    """What is told as a sentence; anything else is a bug and shows its traceback."""
    import psycopg

    from include.night import NightError
    from include.warehouse.publish import PublishError

    return (RuntimeError, ValueError, OSError, psycopg.Error, PublishError, NightError)


def _say(message: str) -> None:
    console.print(message, markup=False)


@app.command()
def up() -> None:
    """Start Postgres, MLflow and Airflow, and wait until they are healthy."""
    from include import night
    from include.ingest.tables import prepare
    from include.services import supervisor
    from include.services.airflow_api import Airflow

    try:
        supervisor.up(_say)
        prepare()
        night.register(Airflow())
    except _known_errors() as error:
        raise _fail(error) from None


@app.command()
def down() -> None:
    """Stop everything of this home; no process is left."""
    from include.services import supervisor

    try:
        supervisor.down()
    except _known_errors() as error:
        raise _fail(error) from None


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What is up, the last partitions per layer, and what failed."""
    from include import night
    from include.services import supervisor

    state = {"home": str(settings().home), "services": supervisor.status(), "nights": night.recent()}
    if as_json:
        print(json.dumps(state, default=str, indent=2))
        return
    night.show_status(console, state)


@app.command()
def run(
    as_of: Day = None,
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day of history.")] = None,
    source: Annotated[str | None, typer.Option(help="A group of sources: demo, olist, online_retail, ...")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the files of a file source.")] = None,
) -> None:
    """Run a night: services up, history loaded once, then the day through every layer.

    Ctrl-C stops the services too. Exits 0 when the night is green.
    """
    from include import night
    from include.services import supervisor

    try:
        night.run(console, as_of=_day(as_of), first=_day(first), group=source or settings().source, data=data)
    except _known_errors() as error:
        raise _fail(error) from None
    except KeyboardInterrupt:
        # A second, impatient one must not leave half of them running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _say("\nInterrupted: stopping every service of this home ...")
        try:
            supervisor.down()
        except _known_errors() as error:
            raise _fail(error) from None
        raise typer.Exit(130) from None


@app.command()
def dsn(role: Annotated[str | None, typer.Option(help="analyst, bi_reader, ... or a vendor's login.")] = None):
    """Print a libpq URL of the warehouse: the owner's, or a role's."""
    from include.warehouse.engine import ROLES
    from include.warehouse.engine import dsn as url

    if role and role not in ROLES:
        from include.warehouse.access import vendor_logins

        try:
            vendors = {one.login for one in vendor_logins()}
        except _known_errors():
            vendors = set()  # no warehouse, no vendors: `vendor list` says why
        if role not in vendors:
            raise _fail(f"There is no role {role}: one of {', '.join(ROLES)}, or a login of `vendor list`.")
    print(url(role))


@app.command()
def rollback(target: str, to: Annotated[str, typer.Option(metavar="YYYY-MM-DD")]) -> None:
    """Make an earlier day the newest of a prediction table, e.g. predictions.churn_score --to 2025-12-31."""
    from include.warehouse.publish import rollback as take_back

    day = _day(to)
    assert day is not None
    try:
        taken = take_back(target, day)
    except _known_errors() as error:
        raise _fail(error) from None
    gone = f"taken back: {', '.join(map(str, taken))}" if taken else "it was already"
    _say(f"{target} is back at {day}; {gone}")


@app.command()
def audit(as_of: Annotated[str, typer.Option(metavar="YYYY-MM-DD")]) -> None:
    """Every control total and check of a day; exits 1 when one fails."""
    from include.audit import audit as lines_of

    day = _day(as_of)
    assert day is not None
    table = Table(title=f"Audit as of {day}", title_justify="left")
    for header in ("", "area", "subject", "detail"):
        table.add_column(header, overflow="fold")
    try:
        lines = lines_of(day)
    except _known_errors() as error:
        raise _fail(error) from None
    for line in lines:
        table.add_row("ok" if line.is_ok else "FAIL", line.area, escape(line.subject), escape(line.detail))
    console.print(table, markup=False)
    failed = [line for line in lines if not line.is_ok]
    if failed:
        raise _fail(f"{len(failed)} of {len(lines)} controls failed as of {day}.")
    _say(f"{len(lines)} controls hold as of {day}.")


source_app = typer.Typer(no_args_is_help=True, help="Sources: try one, scaffold one, list them.")
app.add_typer(source_app, name="source")


@source_app.command("check")
def source_check(
    source: Annotated[str, typer.Argument(help="Its name, or the path of a YAML.")],
    as_of: Day = None,
    data: Annotated[Path | None, typer.Option(help="Folder of a history dump.")] = None,
) -> None:
    """Try a source without loading it, and say what is there; exits 1 when it cannot be loaded as it is."""
    line = ["expectations.check", str(Path(source).resolve()) if source.endswith((".yaml", ".yml")) else source]
    if day := _day(as_of):
        line += ["--as-of", str(day)]
    if data:
        line += ["--data", str(data.resolve())]
    # A process of its own: the gate is above this layer.
    done = subprocess.run([sys.executable, "-P", "-m", *line], env={**os.environ, "PYTHONPATH": _path()}, check=False)
    raise typer.Exit(done.returncode)


def _path() -> str:
    """Our modules first, then those that were asked for: a connector may live there."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@source_app.command("add")
def source_add(
    name: Annotated[str, typer.Argument(help="Lower case, digits and underscores.")],
    type: Annotated[str, typer.Option(help="sql, files, rest, ... or that of an installed connector.")],
    dsn_secret: Annotated[str | None, typer.Option(help="sql: the secret that holds the database's URL.")] = None,
    folder: Annotated[str | None, typer.Option(help="files, stream: where the files are.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--connection", metavar="KEY=VALUE", help="Any setting of the connection.")
    ] = None,
    entities: Annotated[
        list[str] | None, typer.Option("--entity", metavar="NAME[=TABLE]", help="Only these; default all there are.")
    ] = None,
    currency: str = "EUR",
    time_zone: Annotated[str, typer.Option(help="Zone of times that carry none.")] = "UTC",
    data: Annotated[Path | None, typer.Option(help="Folder of a history dump.")] = None,
) -> None:
    """Write the YAML of a source and its staging models from what is there; nothing is ever overwritten."""
    from include.ingest.scaffold import add, connection_of

    if folder and (Path.cwd() / folder.partition("{")[0]).is_dir():
        # The YAML is read from anywhere: a folder that is seen from here is named in full.
        folder = str(Path.cwd() / folder)
    try:
        settings_of = connection_of(options or [], dsn_secret=dsn_secret, folder=folder)
        made = add(name, type, settings_of, entities or [], currency=currency, time_zone=time_zone, data=data)
    except _known_errors() as error:
        raise _fail(error) from None
    for path in made.paths:
        _say(f"written: {path}")
    for line in made.todo:
        _say(f"to do: {line}")
    _say(f"Next: ./emporium source check {name}")


@source_app.command("list")
def source_list() -> None:
    """The sources, and the types that a YAML may name."""
    from include.ingest.connectors import names
    from include.ingest.sources import sources

    table = Table()
    for header in ("source", "type", "group", "entities", "provides"):
        table.add_column(header, overflow="fold")
    try:
        for one in sources():
            table.add_row(one.source, one.type, one.group, ", ".join(one.entities), ", ".join(one.provides))
    except _known_errors() as error:
        raise _fail(error) from None
    console.print(table, markup=False)
    _say(f"types: {', '.join(names())}")


vendor_app = typer.Typer(no_args_is_help=True, help="Logins of vendors, who see their own rows of bi only.")
app.add_typer(vendor_app, name="vendor")


@vendor_app.command("add")
def vendor_add(
    login: Annotated[str, typer.Argument(help="Its name in Postgres, such as acme_tools.")],
    marketplace: Annotated[str, typer.Option(help="As in bi.dim_vendor.")],
    vendor: Annotated[str, typer.Option(help="vendor_id, as in bi.dim_vendor.")],
) -> None:
    """Give a login the rows of a vendor, and make it where there is none; its password goes to the secret store."""
    from include.warehouse.access import add_vendor

    try:
        name = add_vendor(login, marketplace, vendor)
    except _known_errors() as error:
        raise _fail(error) from None
    _say(f"{login} sees the rows of vendor {vendor} of {marketplace}. Its password is the secret {name}.")
    _say(f"For its URL: ./emporium dsn --role {login}")


@vendor_app.command("list")
def vendor_list() -> None:
    """Which login sees the rows of which vendor."""
    from include.warehouse.access import vendor_logins

    try:
        found = vendor_logins()
    except _known_errors() as error:
        raise _fail(error) from None
    table = Table()
    for header in ("login", "marketplace", "vendor"):
        table.add_column(header, overflow="fold")
    for one in found:
        table.add_row(one.login, one.marketplace, escape(one.vendor_id))
    console.print(table, markup=False)


@vendor_app.command("remove")
def vendor_remove(login: Annotated[str, typer.Argument(help="Its name, as `vendor list` shows it.")]) -> None:
    """Take a login away, with its password."""
    from include.warehouse.access import remove_vendor

    try:
        remove_vendor(login)
    except _known_errors() as error:
        raise _fail(error) from None
    _say(f"{login} is gone.")


quarantine_app = typer.Typer(no_args_is_help=True, help="Rows that broke a rule: list, show, put mended ones back.")
app.add_typer(quarantine_app, name="quarantine")

OfSource = Annotated[str | None, typer.Option("--source", help="Only this source.")]
OfEntity = Annotated[str | None, typer.Option("--entity", help="Only this entity.")]
OfRule = Annotated[str | None, typer.Option("--rule", help="Only rows that break this rule.")]


@quarantine_app.command("list")
def quarantine_list(source: OfSource = None, entity: OfEntity = None, as_of: Day = None, rule: OfRule = None) -> None:
    """How many rows there are, by source, entity, day and the first rule that they break."""
    from include.ingest.quarantine import MENDED, Wanted, counts, lost_mends

    wanted = Wanted(source, entity, _day(as_of), rule)
    try:
        found, lost = counts(wanted), lost_mends(wanted)
    except _known_errors() as error:
        raise _fail(error) from None
    table = Table()
    for header in ("source", "entity", "day", "rule", "rows"):
        table.add_column(header, overflow="fold", justify="right" if header == "rows" else "left")
    for of, name, day, broken, n in found:
        table.add_row(of, name, str(day), "mended, loaded" if broken == MENDED else broken, str(n))
    if found:
        console.print(table, markup=False)
    n_aside = sum(n for *_, broken, n in found if broken != MENDED)
    _say(f"{n_aside} rows are set aside.")
    for line in lost:
        _say(line)


@quarantine_app.command("show")
def quarantine_show(
    source: OfSource = None,
    entity: OfEntity = None,
    as_of: Day = None,
    rule: OfRule = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, all of them, to mend and replay.")] = False,
) -> None:
    """The rows: file and line, the rules that they break, and what they hold."""
    from include.ingest.quarantine import Wanted, rows_aside

    try:
        rows = rows_aside(Wanted(source, entity, _day(as_of), rule), None if as_json else limit)
    except _known_errors() as error:
        raise _fail(error) from None
    for row in rows:
        if as_json:
            if not row.is_mended:
                print(row.as_json())
            continue
        what = "mended, loaded" if row.is_mended else ", ".join(row.rules)
        columns = f" (column {', '.join(row.columns)})" if row.columns else ""
        _say(f"{row.source}.{row.entity} of {row.partition_on}, {row.file}:{row.line}: {what}{columns}")
        _say(f"  {row.payload}")


@quarantine_app.command("replay")
def quarantine_replay(
    file: Annotated[
        typer.FileText | None, typer.Argument(help="JSON lines of `show --json`, payloads mended; - for stdin.")
    ] = None,
    rejudge: Annotated[bool, typer.Option("--all", help="Judge a day again as it is: the YAML was mended.")] = False,
    source: OfSource = None,
    as_of: Day = None,
) -> None:
    """Put mended rows back, then judge and load their days again; what still breaks a rule stays."""
    from include.ingest.quarantine import rerun, store
    from include.ingest.sources import load_source

    day = _day(as_of)
    try:
        if rejudge and file is None and source and day:
            of_days = {source: [day]}
        elif file is not None and not (rejudge or source or day):
            stored = store(file)
            _say(f"{stored.n_mended} rows mended, {stored.n_unchanged} unchanged.")
            of_days = stored.days
        else:
            raise ValueError("Say either a FILE of mended rows, or --all with --source and --as-of.")
        for name, mended_days in of_days.items():
            for line in rerun(load_source(name), mended_days):
                _say(line)
    except _known_errors() as error:
        raise _fail(error) from None
    for name, mended_days in of_days.items():
        _say(f"{name}: {', '.join(map(str, mended_days))} is loaded. Run the night again from `warehouse` on.")


if __name__ == "__main__":
    app()
