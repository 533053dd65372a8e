"""``python -m expectations.check SOURCE [--as-of D] [--data FOLDER]``: what ``./emporium source check`` runs.

SOURCE is the name of a source or the path of a YAML. Exit 1 when the source cannot be loaded as it is.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

from rich.console import Console

from include.dates import parse_day
from include.ingest.check import Rule, Verdict, check, show, shown
from include.ingest.extract import Extract
from include.ingest.sources import Entity, Source, load_source, parse_source


def judge(source: Source, name: str, entity: Entity, found: Extract, day: date) -> Verdict:
    """The raw gate's verdict on the rows of a day that are nowhere but here."""
    # Imported on use: it takes seconds, and a source that does not answer should say so at once.
    from expectations import raw

    tally = raw.Tally(source.source, name, entity, [day])
    aside = tally.judge(found.rows)
    checks = tally.checks({})
    rules = []
    for one in checks:
        if one.is_passed or one.severity == "critical":
            continue
        places = one.observed.get("first")
        example = _example(name, entity, found, one.rule, places[0]) if places else f"{one.observed}"
        rules.append(Rule(one.rule, one.n_failed, one.observed.get("on_break") == "quarantine", example))
    stops = [raw.message(one) for one in checks if one.severity == "critical" and not one.is_passed]
    return Verdict(rules, aside.rows.num_rows, stops)


def _example(entity_name: str, entity: Entity, found: Extract, rule: str, place: str) -> str:
    """``file:line`` and the value there, or what is wrong with the line. Never the value of a person's column."""
    file, _, line = place.rpartition(":")
    rows = found.rows.select([*entity.columns, "_file", "_line", "_error"]).to_pylist()
    row = next((one for one in rows if one["_file"] == file and str(one["_line"]) == line), None)
    if row is None or row["_error"]:
        return f"{place}: {row['_error']}" if row else place
    columns = [name for name in entity.columns if rule.startswith(f"{name}_")]
    if not columns:
        return place
    name = max(columns, key=len)
    column, value = entity.columns[name], row[name]
    said = "null" if value is None else shown(entity_name, column.source_name or name, column, [value])
    return f"{place}: {name} = {said}"


def main(argv: list[str] | None = None) -> int:
    """Check a source and print the report; 1 when it cannot be loaded."""
    parser = argparse.ArgumentParser(prog="./emporium source check", description="Try a source; nothing is written.")
    parser.add_argument("source", help="its name, or the path of a YAML")
    parser.add_argument("--as-of", type=parse_day, metavar="D", help="the day whose rows are tried, YYYY-MM-DD")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder of a history dump; default EMPORIUM_DATA")
    args = parser.parse_args(argv)
    try:
        is_path = args.source.endswith((".yaml", ".yml"))
        source = parse_source(Path(args.source)) if is_path else load_source(args.source)
        report = check(source, args.as_of, args.data, judge)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    show(Console(highlight=False, width=None if sys.stdout.isatty() else 160), report)
    return 1 if report.all_problems else 0


if __name__ == "__main__":
    sys.exit(main())
