"""``python -m include.demo fill [--small]``: fill the demo's source systems, or see that they are filled."""

from __future__ import annotations

import argparse
import sys

import psycopg

from include.demo import FULL, SMALL, fill


def main(argv: list[str] | None = None) -> int:
    """0 when the marketplace is filled, 1 with one sentence when it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m include.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    filling = commands.add_parser("fill", help="fill the shop's database, the outlet's files and the click files")
    filling.add_argument("--small", action="store_true", help="three months of a small marketplace, for tests")
    options = parser.parse_args(argv)
    try:
        filled = fill(SMALL if options.small else FULL, progress=lambda line: print(line, flush=True))
    except (psycopg.Error, OSError) as error:
        print(f"The demo marketplace could not be filled: {error}", file=sys.stderr)
        return 1
    for name, count in filled.counts.items():
        print(f"  {name:<32}{count:>10,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
