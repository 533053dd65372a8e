"""``python -m ml_tasks.champions --as-of D``: who predicts as of D, and that every use case has someone."""

import argparse
import sys
from datetime import date

from include.dates import parse_day
from include.warehouse.engine import connect
from ml_tasks import use_case_names


def champions(as_of: date) -> dict[str, str]:
    """``{use case: champion and why}`` of the day. ``LookupError`` names the use cases without a decision."""
    with connect("scorer") as conn:
        rows = conn.execute(
            "select use_case, champion_name, champion_version, is_promoted, reason from ops.model_decision "
            "where as_of = %s",
            (as_of,),
        ).fetchall()
    found = {
        name: f"{champion} v{version}{' (new)' if promoted else ''}: {reason}"
        for name, champion, version, promoted, reason in rows
    }
    missing = [name for name in use_case_names() if name not in found]
    if missing:
        raise LookupError(
            f"No champion as of {as_of} for {', '.join(missing)}: "
            f"run `python -m ml_tasks.train {' '.join(missing)} --as-of {as_of}`."
        )
    return found


def main() -> None:
    """Print one line per use case."""
    parser = argparse.ArgumentParser(description="Champions of a business day")
    parser.add_argument("--as-of", required=True, type=parse_day, metavar="YYYY-MM-DD")
    args = parser.parse_args()
    try:
        for name, line in champions(args.as_of).items():
            print(f"{name}: {line}")
    except LookupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
