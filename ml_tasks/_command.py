"""What the train and score commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import date

import psycopg

from include.dates import parse_day
from include.warehouse.publish import PublishError
from ml_tasks import use_case, use_case_names
from ml_tasks.lifecycle.usecase import UseCase


def run(what: Callable[[UseCase, date], object], description: str) -> int:
    """Do ``what`` for each named use case; a failure of one does not keep the others from running. Exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("use_cases", nargs="+", metavar="use_case", choices=use_case_names(), help="%(choices)s")
    parser.add_argument("--as-of", required=True, type=parse_day, metavar="YYYY-MM-DD", help="business day")
    args = parser.parse_args()
    failed = False
    for name in args.use_cases:
        try:
            what(use_case(name), args.as_of)
        except (LookupError, OSError, RuntimeError, ValueError, PublishError, psycopg.Error) as error:
            print(f"{name} as of {args.as_of}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed = True
    return int(failed)
