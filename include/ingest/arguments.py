"""The arguments that land, gate and load share."""

from __future__ import annotations

import argparse
from datetime import date

from include.dates import parse_day

NOTHING_TO_DO = 99
"""Exit code that Airflow shows as skipped (``include.airflow.tasks``)."""


def add_range(parser: argparse.ArgumentParser, with_source: bool = True) -> None:
    """The arguments that land, gate and load share: ``--source`` (repeatable), ``--as-of``, ``--from``."""
    if with_source:
        parser.add_argument("--source", action="append", required=True, help="a source; may be given several times")
    parser.add_argument("--as-of", type=_day, required=True, metavar="D", help="business day, YYYY-MM-DD")
    parser.add_argument("--from", type=_day, dest="first", metavar="D0", help="first day of a range; default D")


def check_range(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Fill ``first`` and refuse a range that runs backwards."""
    args.first = args.first or args.as_of
    if args.first > args.as_of:
        parser.error(f"--from {args.first} is after --as-of {args.as_of}")


def _day(text: str) -> date:
    try:
        return parse_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
