"""``source add``: the YAML of a source and its staging models, from what the live source has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from include.ingest.connectors import Connector, Found, SourceError, connector_class
from include.ingest.infer import snake
from include.ingest.sources import Entity, Source
from include.settings import ROOT

PERSON = re.compile(
    r"(^|_)(e?_?mail|phone|telephone|mobile|fax|firstname|lastname|surname|first_name|last_name|full_name|nickname|"
    r"customer_name|user_name|username|street|address\w*|birth\w*|dob|ip|iban|bic|card_number|ssn|tax_id|latitude|"
    r"longitude)(_|$)"
)
PEOPLE = re.compile(r"customer|user|person|people|buyer|member|contact|address|subscriber|account")
"""Tables in which a plain ``name`` is somebody's."""
EMAIL = re.compile(r"(^|_)e?_?mail(_address)?$")
SECRET = re.compile(r"pass(word)?|salt|token|secret|hash|session", re.IGNORECASE)

CURSORS = (
    re.compile(r"(^|_)(updated|modified|changed|last_update|last_change)(_|$)"),
    re.compile(r"(^|_)(created|added|inserted|placed|ordered|sold|registered|occurred|event)(_|$)"),
)
"""What columns that say when a row became known are called, the best first."""

TAKEN = {"partition_on", "partition_month", "known_at"}
_RESERVED = """
all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create current_date
current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign
from grant group having in initially intersect into lateral leading limit localtime localtimestamp not null offset on
only or order placing primary references returning select session_user some symmetric table then to trailing true union
unique user using variadic when where window with
"""
RESERVED = set(_RESERVED.split())
"""Postgres's reserved words, which a staging model could not name."""


@dataclass
class Made:
    """What was written, and what is left to a person."""

    paths: list[Path] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)


@dataclass
class _Proposal:
    """An entity of the YAML to be."""

    name: str
    read: dict[str, Any]
    key: list[str]
    cursor: str | None
    columns: dict[str, dict[str, Any]]
    ignore: dict[str, str]
    """Column -> why it is left out."""


def connection_of(options: Sequence[str], **shorthands: str | None) -> dict[str, Any]:
    """``key=value`` texts and shorthands as the ``connection`` of a YAML; ``ValueError`` names what is no setting."""
    found: dict[str, Any] = {name: value for name, value in shorthands.items() if value is not None}
    for option in options:
        key, is_setting, value = option.partition("=")
        if not is_setting or not key:
            raise ValueError(f"--connection {option}: write KEY=VALUE")
        found[key] = yaml.safe_load(value)
    return found


def add(
    name: str,
    type: str,
    connection: Mapping[str, Any],
    entities: Sequence[str] = (),
    *,
    currency: str = "EUR",
    time_zone: str = "UTC",
    data: Path | None = None,
    root: Path = ROOT,
) -> Made:
    """Look at the source and write ``include/sources/<name>.yaml`` and ``dbt_project/models/staging/<name>``.

    ``entities`` (``name`` or ``name=table``) restricts what is taken, and says what there is where a source cannot
    (an API's paths). Personal columns become pseudonyms or are left out. ``ValueError`` when a file is there already:
    nothing is overwritten, and nothing is written then.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,50}", name):
        raise ValueError(f"{name!r} is not a name for a source: lower case, digits and underscores, a letter first.")
    target, staging = root / "include" / "sources" / f"{name}.yaml", root / "dbt_project/models/staging" / name
    if there := [path for path in (target, staging) if path.exists()]:
        raise ValueError(f"{there[0]} is there already, and nothing is overwritten: choose another name or remove it.")
    head = {
        "source": name, "type": type, "marketplace": name, "currency": currency, "time_zone": time_zone,
        "connection": dict(connection),
    }  # fmt: skip
    wanted = dict(_wanted(one) for one in entities)
    made = Made()
    proposals = []
    for one in _proposals(head, wanted, data, made):
        try:
            Source.model_validate({**head, "entities": {one.name: _entity(one)}})
        except ValueError as error:
            made.todo.append(f"{one.name} is left out, describe it by hand: {_first_line(error)}")
            continue
        proposals.append(one)
    if not proposals:
        raise ValueError(f"Nothing of {name} could be described: {'; '.join(made.todo) or 'it has no table'}.")
    files = {target: _yaml(head, proposals), staging / f"_{name}.yml": _declarations(name, proposals)}
    files |= {staging / f"stg_{name}__{one.name}.sql": _model(name, one) for one in proposals}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        made.paths.append(path)
    return made


def _wanted(text: str) -> tuple[str, str]:
    name, _, table = text.partition("=")
    return name, table or name


def _first_line(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next(
        (line.removeprefix("Value error, ").split(" [type=")[0] for line in lines[1:] if ", " in line), lines[0]
    )


def _proposals(head: Mapping[str, Any], wanted: Mapping[str, str], data: Path | None, made: Made) -> list[_Proposal]:
    found_in_all = []
    with _opened(head, wanted, data) as reader:
        found = reader.discover()
        names = {of: name for name, of in wanted.items()}
        if lacking := [of for name, of in wanted.items() if name not in found and of not in found]:
            raise SourceError(f"{head['source']} has no {', '.join(lacking)}; it has: {', '.join(found)}.")
        for table, columns in found.items():
            if wanted and table not in names and table not in wanted:
                continue
            name = names.get(table) or _entity_name(table, head["source"])
            read = {"path": wanted[name]} if "path" in reader.Read.model_fields else reader.proposed(table)
            one = _proposal(name, read, columns)
            if not one.key:
                made.todo.append(f"{name} is left out, describe it by hand: no column of it tells its rows apart")
                continue
            if one.cursor is None and "snapshot" in reader.Read.model_fields:
                one.read["snapshot"] = True
                made.todo.append(f"{name} has no time of change: it is read whole every night (snapshot)")
            found_in_all.append(one)
    return found_in_all


def _entity_name(table: str, source: str) -> str:
    # What a file is called without its day; a file that is called by its day alone is all that the source has.
    plain = re.sub(r"\{\w+\}", "", table).strip("-_. ")
    return snake(plain) if plain else source


def _opened(head: Mapping[str, Any], wanted: Mapping[str, str], data: Path | None) -> Connector:
    """The connector of a source of which only the connection is known; entities where it must be told of them."""
    kind = connector_class(head["type"])
    told = {}
    if "path" in kind.Read.model_fields:
        if not wanted:
            raise ValueError(f"Type {head['type']} cannot list what there is: say it with --entity NAME=PATH.")
        told = {name: Entity.model_construct(key=[], columns={}, read={"path": path}) for name, path in wanted.items()}
    source = Source.model_construct(**{**head, "group": head["source"], "provides": [], "entities": {}})
    kind.check_source(source)
    return kind(source.model_copy(update={"entities": told}), data)


def _proposal(name: str, read: dict[str, Any], found: Sequence[Found]) -> _Proposal:
    columns: dict[str, dict[str, Any]] = {}
    ignore: dict[str, str] = {}
    key, times = [], []
    for one in found:
        plain = snake(one.name)
        raw = plain + "_" if plain in RESERVED | TAKEN else plain
        if raw in columns:
            ignore[one.name] = f"becomes {raw}, as another column does"
            continue
        about: dict[str, Any] = {} if raw == one.name else {"from": one.name}
        if not one.is_key and (why := private(plain, name)):
            if not EMAIL.search(plain):
                ignore[one.name] = why
                continue
            about["pseudonym"] = "email"
        elif one.type != "text":
            about["type"] = one.type
        if one.is_key or not one.is_nullable:
            about["required"] = True
        if one.is_key:
            key.append(raw)
        if one.type == "timestamptz":
            times.append(raw)
        columns[raw] = about
    cursor = next((one for pattern in CURSORS for one in times if pattern.search(one)), times[0] if times else None)
    return _Proposal(name, read, key, cursor, columns, ignore)


def private(column: str, entity: str) -> str | None:
    """Why a column's values are nobody's business, by its name; None where they may be shown."""
    if SECRET.search(column):
        return "a secret"
    is_person = PERSON.search(column) or (column == "name" and PEOPLE.search(entity))
    return "a person's: name it with `pseudonym:` if it is needed" if is_person else None


# --- the files ------------------------------------------------------------------------------------


def _entity(one: _Proposal) -> dict[str, Any]:
    entity = {"read": one.read, "key": one.key, "columns": one.columns, "ignore": list(one.ignore)}
    return entity | ({"cursor": one.cursor} if one.cursor else {})


def _flow(value: Any) -> str:
    """A value on one line, as the other YAMLs write it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True).strip()


def _scalar(value: str) -> str:
    return _flow([value])[1:-1]


def _yaml(head: Mapping[str, Any], proposals: Sequence[_Proposal]) -> str:
    name = head["source"]
    lines = [
        f"# Made by `./emporium source add` from what {name} had on that day: read it, then",
        f"# `./emporium source check {name}`. docs/add-a-source.md explains every setting.",
    ]
    lines += [f"{key}: {_scalar(head[key])}" for key in ("source", "type", "marketplace", "currency", "time_zone")]
    lines += ["connection:", *(f"  {key}: {_flow([value])[1:-1]}" for key, value in head["connection"].items())]
    lines += ["provides: []", "entities:"]
    for one in proposals:
        lines += [f"  {one.name}:", f"    read: {_flow(one.read)}", f"    key: {_flow(one.key)}"]
        lines += [f"    cursor: {one.cursor}"] if one.cursor else []
        lines += ["    columns:", *(f"      {column}: {_flow(about)}" for column, about in one.columns.items())]
        if one.ignore:
            lines += ["    ignore:", *(f"      - {_scalar(column)}  # {why}" for column, why in one.ignore.items())]
    return "\n".join(lines) + "\n"


def _declarations(name: str, proposals: Sequence[_Proposal]) -> str:
    lines = ["version: 2", "", "sources:", f"  - name: {name}", f"    schema: raw_{name}"]
    lines += [f"    description: The source {name}.", "    meta: {owner: data platform}", "    tables:"]
    for one in proposals:
        lines += [f"      - name: {one.name}", f"        description: Key {', '.join(one.key)}."]
    lines += ["", "models:"]
    for one in proposals:
        grain = f"Grain: {', '.join(one.key)} and business day on which the row became known."
        lines += [f"  - name: stg_{name}__{one.name}", "    description: >-", f"      {grain}"]
    return "\n".join(lines) + "\n"


def _model(name: str, one: _Proposal) -> str:
    columns = [*one.columns, "_deleted as is_deleted", "known_at", "partition_on as known_on"]
    listed = ",\n".join(f"    {column}" for column in columns)
    # Where the policy is `evolve`, columns that appear one day come after these.
    of = f'("{name}", "{one.name}")'
    return f"select\n{listed}\n    {{{{ evolved{of} }}}}\nfrom {{{{ source{of} }}}}\n"
