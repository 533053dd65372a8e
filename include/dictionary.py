"""The data dictionary, and the table of settings: documents written from what is there.

``python -m include.dictionary`` writes docs/data-dictionary.md from the warehouse's own comments and, for
columns without one, from dbt's descriptions. ``python -m include.dictionary settings`` writes the table of
settings into docs/operations.md and needs no warehouse.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from include.settings import ROOT, Settings, settings

PAGE = ROOT / "docs" / "data-dictionary.md"
OPERATIONS = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"

SCHEMAS = {
    "bi": "What BI tools and apps read, as role `bi_reader`. Views that no dbt run can drop.",
    "core": "What dbt builds and analysts read: all that is in `bi`, and the versions behind it.",
    "predictions": "The rows behind `bi` predictions, one partition per `as_of`.",
    "published": "The audited copy of the marts behind `bi`, merged in one transaction a night.",
    "ops": "What was loaded, checked, decided and published.",
}
"""The schemas a reader meets, in the order of the page."""

GLOSSARY = {
    "as_of": "Business day (UTC): made from what was known before the next day began",
    "published_at": "When these rows were swapped in; a rerun with the same rows keeps it",
    "loaded_at": "When the rows were loaded",
    "checked_at": "When the check ran",
    "model_name": "The champion's name in the model registry, or `naive:<rule>` where no model beats the naive rule",
    "model_version": "The champion's version in the model registry; 0 for a naive rule",
    "forecast_on": "The day that is predicted",
    "p10": "Units sold: the actual value is below this on one day in ten",
    "p50": "Units sold: the median forecast",
    "p90": "Units sold: the actual value is above this on one day in ten",
    "churn_probability": "Probability that the customer places no order within the horizon, calibrated",
    "decile": "1 is the tenth of customers most at risk, 10 the least",
    "reason_1": "What moves this customer's probability most",
    "reason_2": "The second strongest reason",
    "reason_3": "The third strongest reason",
    "marketplace": "The shop, as its source's YAML names it",
    "product_id": "The product's key within its marketplace",
    "customer_id": "Pseudonym of the person, the same in all shops that know the same e-mail address",
    "category": "The product's category",
    "run_id": "Who wrote it: DAG, run and try, or the shell's process",
    "token": "Fencing token: only the newest of a target and day may publish",
    "target": "The table or entity that was checked or written",
    "source": "The source's name, as in include/sources",
    "entity": "The source's table or file",
    "column_name": "The column",
    "first_seen_on": "The business day on which the source first had it",
    "policy": "What was done about it: evolve, freeze or quarantine; null for what was there from the first day on",
    "file": "The file's path below the stream's folder",
    "sha256": "SHA-256 of the file",
    "n_bytes": "Size of the file as delivered, bytes",
    "n_lines": "Lines that are not blank",
    "take": "The run that took the file",
    "taken_at": "When the file was taken",
    "partition_on": "The business day on which the rows became known",
    "n_in": "Rows that arrived: loaded + duplicate + quarantined",
    "n_loaded": "Rows that were loaded",
    "n_duplicate": "Rows left out as exact or superseded duplicates",
    "n_quarantined": "Rows that broke a rule and lie in schema quarantine",
    "n_rows": "Rows",
    "checksum": "Of the rows, whatever their order",
    "severity": "critical blocks, warning tells someone, info is kept",
    "rule": "The rule that was checked",
}
"""What a column means wherever it appears, unless the warehouse or dbt says something else about it."""


@dataclass(frozen=True)
class Column:
    """A column as the page shows it."""

    name: str
    type: str
    description: str = ""


@dataclass(frozen=True)
class Table:
    """A table or view with its columns in order."""

    schema: str
    name: str
    description: str = ""
    columns: Sequence[Column] = field(default_factory=tuple)


COLUMNS = """
select n.nspname, c.relname, coalesce(obj_description(c.oid, 'pg_class'), ''),
       a.attname, format_type(a.atttypid, a.atttypmod), coalesce(col_description(c.oid, a.attnum), '')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = any(%s) and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
  and c.relname !~ '_p[0-9]{8}_t[0-9]+$' and c.relname <> 'alembic_version'
order by n.nspname, c.relname, a.attnum
"""
"""Partitions, live or taken back, are the same table to a reader."""


def read_warehouse() -> list[Table]:
    """Every table and view of ``SCHEMAS`` with its comments, but for ``core``: see ``read_core``. Role: owner."""
    from include.warehouse.engine import connect

    found: dict[tuple[str, str], tuple[str, list[Column]]] = {}
    with connect() as conn:
        for schema, name, description, *column in conn.execute(
            COLUMNS, ([name for name in SCHEMAS if name != "core"],)
        ).fetchall():
            found.setdefault((schema, name), (description, []))[1].append(Column(*column))
    return [Table(schema, name, text, tuple(columns)) for (schema, name), (text, columns) in found.items()]


def manifest_path() -> Path | None:
    """Production's ``manifest.json``: below the home, where ``include.dbt`` keeps it, or in the project's target."""
    places = (settings().home / "dbt" / "target" / "manifest.json", ROOT / "dbt_project" / "target" / "manifest.json")
    return next((path for path in places if path.is_file()), None)


def read_manifest(path: Path | None) -> dict[str, tuple[str, dict[str, str]]]:
    """Model name -> (description, column name -> description); empty without a manifest."""
    if path is None:
        return {}
    nodes = json.loads(path.read_text())["nodes"].values()
    return {
        node["name"]: (
            node.get("description", ""),
            {name.lower(): column.get("description", "") for name, column in node.get("columns", {}).items()},
        )
        for node in nodes
        if node["resource_type"] == "model"
    }


def read_core(path: Path | None, in_bi: Collection[str]) -> list[Table]:
    """The marts of the manifest that are not in ``bi``, by their contracts."""
    if path is None:
        return []
    nodes = json.loads(path.read_text())["nodes"].values()
    return [
        Table(
            "core",
            node["name"],
            node["description"],
            tuple(Column(c["name"], c.get("data_type") or "", c["description"]) for c in node["columns"].values()),
        )
        for node in nodes
        if node["resource_type"] == "model" and node["schema"] == "core" and node["name"] not in in_bi
    ]


def describe(tables: Sequence[Table], models: Mapping[str, tuple[str, dict[str, str]]]) -> list[Table]:
    """The tables with empty descriptions filled in, last from the glossary.

    A ``bi`` view takes those of the table behind it (its own name, without ``_latest``), a published mart
    those of the dbt model it is copied from.
    """
    behind = {table.name: table for table in tables if table.schema in ("published", "predictions")}
    described = []
    for table in tables:
        base = table.name.removesuffix("_latest") if table.schema == "bi" else table.name
        model_text, model_columns = models.get(base, ("", {}))
        origin = behind.get(base)
        commented = {column.name: column.description for column in origin.columns} if origin else {}
        places = (commented, model_columns, GLOSSARY)
        text = table.description or (origin.description if origin else "") or model_text
        if table.name.endswith("_latest"):
            text = f"The rows of `bi.{base}` with the newest `as_of`."
        columns = [
            Column(c.name, c.type, next(filter(None, (c.description, *(known.get(c.name) for known in places))), ""))
            for c in table.columns
        ]
        described.append(Table(table.schema, table.name, text, tuple(columns)))
    return described


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _row(*cells: str) -> str:
    return "|" + "|".join(f" {_text(cell)} " if cell else " " for cell in cells) + "|"


def render(tables: Sequence[Table]) -> str:
    """The page. A table behind a ``bi`` view of the same name is named there and not listed twice."""
    in_bi = {table.name for table in tables if table.schema == "bi"}
    lines = [
        "# Data dictionary",
        "",
        "Written by `make docs` from the warehouse's comments and dbt's descriptions; do not edit.",
    ]
    for schema, text in SCHEMAS.items():
        lines += ["", f"## {schema}", "", text]
        for table in sorted((t for t in tables if t.schema == schema), key=lambda t: t.name):
            lines += ["", f"### {schema}.{table.name}", ""]
            if schema != "bi" and table.name in in_bi:
                lines.append(f"Columns as in [bi.{table.name}](#bi{table.name}).")
                continue
            lines += [_text(table.description), ""] if table.description else []
            lines += ["| column | type | meaning |", "| --- | --- | --- |"]
            lines += [_row(f"`{c.name}`", c.type, c.description) for c in table.columns]
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """Every setting as a Markdown table: variable, default, meaning."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field_ in Settings.model_fields.items():
        default = field_.default
        if isinstance(default, Path):
            default = default.relative_to(ROOT) if default.is_relative_to(ROOT) else default
        shown = "" if default is None else f"`{default}`"
        lines.append(_row(f"`EMPORIUM_{name.upper()}`", shown, field_.description or ""))
    return "\n".join(lines)


def write_settings(page: Path = OPERATIONS) -> None:
    """Replace what lies between the two markers of ``page``; ``ValueError`` when it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no {BEGIN} ... {END}.")
    page.write_text(f"{before}{BEGIN}\n{settings_table()}\n{END}{after}")


def write_page(page: Path = PAGE) -> None:
    """Write the page from the running warehouse and dbt's manifest, and say what is on it."""
    manifest = manifest_path()
    tables = describe(read_warehouse(), read_manifest(manifest))
    tables += read_core(manifest, {table.name for table in tables if table.schema == "bi"})
    page.write_text(render(tables))
    n_columns = sum(len(table.columns) for table in tables)
    n_bare = sum(not column.description for table in tables if table.schema == "bi" for column in table.columns)
    print(f"dictionary: {len(tables)} tables, {n_columns} columns in {page.name}; {n_bare} columns of bi undescribed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/data-dictionary.md, or the settings in docs/operations.md")
    parser.add_argument("what", nargs="?", choices=("warehouse", "settings"), default="warehouse")
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    if args.what == "settings":
        write_settings()
        print(f"settings: {len(Settings.model_fields)} in {OPERATIONS.relative_to(ROOT)}")
        return
    write_page(args.out)


if __name__ == "__main__":
    main()
