"""``python -m include.ingest prepare | plan | land | load | close``: the commands of the ingest DAG.

prepare                                        make all raw and quarantine tables
plan --as-of D [--group G] [--data FOLDER]     the sources of the day, as arguments for the others (JSON, last line)
land --source S --as-of D [--from D0] [--data FOLDER]  extract D0..D (default: D alone) to bronze
load --source S --as-of D [--from D0]          bronze minus quarantine to raw, after the gate expectations.raw
close --source S --as-of D [--from D0]         check that every entity of the day is loaded and counted
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import psycopg

from include.ingest.arguments import NOTHING_TO_DO, add_range, check_range


def main(argv: list[str] | None = None) -> int:
    """Run a command; 1 with one sentence on stderr when it cannot be done."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    except psycopg.OperationalError as error:
        print(f"The warehouse does not answer: {error}", file=sys.stderr)
        return 1
    return 0


def _prepare(args: argparse.Namespace) -> None:
    from include.ingest.tables import prepare

    started = time.monotonic()
    made = prepare()
    print(f"prepared {len(made)} raw tables in {time.monotonic() - started:.1f} s")


def _plan(args: argparse.Namespace) -> None:
    from include.ingest.plan import arguments

    lines = arguments(args.as_of, args.first, args.group, args.data)
    if not lines:
        print(f"No active source has data of {args.as_of}: nothing to do.")
        sys.exit(NOTHING_TO_DO)
    print(json.dumps(lines))


def _close(args: argparse.Namespace) -> None:
    from include.ingest.plan import close

    for line in close(args.source, args.first, args.as_of):
        print(line)
    if args.history:
        print("History is loaded; nothing downstream starts before a night.")
        sys.exit(NOTHING_TO_DO)


def _land(args: argparse.Namespace) -> None:
    from include.ingest.connectors import connector_class
    from include.ingest.land import land
    from include.ingest.sources import load_source

    for name in args.source:
        source = load_source(name)
        if connector_class(source.type).lands_in_spark:
            print(f"{name} is a stream: python -m spark_jobs.stream lands it.")
            continue
        for one in land(source, args.first, args.as_of, args.data):
            print(
                f"{name}.{one.entity}: {one.n_days} days, {one.n_rows} in, {one.n_broken} broken lines, "
                f"{one.seconds:.1f} s"
            )


def _load(args: argparse.Namespace) -> None:
    from include.ingest.load import load
    from include.ingest.sources import load_source

    for name in args.source:
        for one in load(load_source(name), args.first, args.as_of):
            print(
                f"{name}.{one.entity}: {one.n_days} days, {one.n_in} in = {one.n_loaded} loaded "
                f"+ {one.n_duplicate} duplicate + {one.n_quarantined} quarantined, {one.seconds:.1f} s"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.ingest", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("prepare", help="make all raw and quarantine tables").set_defaults(run=_prepare)
    plan = commands.add_parser("plan", help="the sources of the day")
    plan.add_argument("--group", help="demo, olist or online_retail; default every active one")
    plan.add_argument("--data", type=Path, help="folder of a history dump; default EMPORIUM_DATA")
    plan.set_defaults(run=_ranged(plan, _plan, with_source=False))
    land = commands.add_parser("land", help="extract to bronze")
    land.add_argument("--data", type=Path, help="folder of a history dump; default EMPORIUM_DATA")
    land.set_defaults(run=_ranged(land, _land))
    load = commands.add_parser("load", help="bronze minus quarantine to raw")
    load.set_defaults(run=_ranged(load, _load))
    close = commands.add_parser("close", help="check that the day is loaded and counted")
    close.add_argument("--history", action="store_true", help="exit 99 when all is well: start nothing downstream")
    close.set_defaults(run=_ranged(close, _close))
    return parser


def _ranged(parser: argparse.ArgumentParser, run, with_source: bool = True):
    add_range(parser, with_source)

    def checked(args: argparse.Namespace) -> None:
        check_range(parser, args)
        run(args)

    return checked


if __name__ == "__main__":
    sys.exit(main())
