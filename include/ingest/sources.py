"""Sources as YAML: one file in ``include/sources`` says what is read, how it is typed and which rules hold.

``docs/add-a-source.md`` walks through a file.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from include.ops import Severity

FOLDER = Path(__file__).resolve().parent.parent / "sources"

ColumnType = Literal["text", "integer", "bigint", "numeric(18,4)", "timestamptz", "date", "boolean"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,50}$")]
Provided = Literal[
    "orders", "order_items", "payments", "deliveries", "adjustments", "refunds", "products", "stock", "vendors",
    "customers", "reviews", "coupon_uses", "events", "sessions", "rates", "holidays",
]  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Column(_Strict):
    """A raw column: where it comes from, its type, and the rules that a row must keep.

    Each rule has a name of its own in the quarantine: ``<column>_is_present``, ``<column>_is_<type>``,
    ``<column>_is_in_range``, ``<column>_is_known`` (``in``), ``<column>_matches`` (``pattern``). Every text keeps
    ``<column>_is_text``: no NUL, which Postgres would refuse.
    """

    type: ColumnType = "text"
    source_name: str | None = Field(None, alias="from", description="Name in the source; default the column's own.")
    required: bool = False
    optional: bool = Field(False, description="The source may lack the column, as other versions of a shop do.")
    pseudonym: Name | None = Field(None, description="Namespace: replace the value before anything is written.")
    upper: bool = Field(False, description="Fold to upper case: keys that the source writes both ways.")
    min: float | None = None
    max: float | None = None
    values: list[str] | None = Field(None, alias="in")
    pattern: str | None = None
    severity: Severity = "critical"
    unescape: Literal["html"] | None = Field(None, description="The source stores the text escaped.")

    @model_validator(mode="after")
    def _fits(self) -> Column:
        if self.pseudonym and self.type != "text":
            raise ValueError("a pseudonym is text: set `type: text`")
        if (self.min is not None or self.max is not None) and self.type not in ("integer", "bigint", "numeric(18,4)"):
            raise ValueError("`min` and `max` are for numbers")
        if (self.values or self.pattern) and self.type != "text":
            raise ValueError("`in` and `pattern` are for text")
        return self


class RowRule(_Strict):
    """Any row-wise Great Expectations expectation over an entity's typed columns."""

    name: Name
    severity: Severity = "critical"
    expectation: str = Field(description="Class name, such as ExpectColumnPairValuesAToBeGreaterThanB.")
    arguments: dict[str, Any] = {}


class MinRows(_Strict):
    """How many rows a day must bring."""

    n: int = Field(ge=1)
    severity: Severity = "warning"


class Deletes(_Strict):
    """How rows that the source removed are noticed; they stay in raw as a last version with ``_deleted``.

    - ``column``: the source keeps the row and marks it: the value of ``column`` is a time, a date, or true
    - ``keys``: the source forgets the row: its keys are compared with ours every ``every_days`` days
    """

    by: Literal["column", "keys"]
    column: str | None = None
    every_days: int = Field(7, ge=1)
    max_share: float = Field(0.2, gt=0, le=1, description="keys: stop when more of the known keys than this are gone.")

    @model_validator(mode="after")
    def _complete(self) -> Deletes:
        if (self.by == "column") != (self.column is not None):
            raise ValueError("`by: column` needs `column`, and only that")
        return self


Thing = Literal["orders", "customers", "products"]
"""What the warehouse is built by (dbt_project/macros/touched.sql): a change of a raw row touches its keys."""


class Change(_Strict):
    """The column in which a raw row names a thing.

    A row that names it only by another table's says so: Olist's customers know their order by ``orders.customer_id``.
    """

    column: Name
    through: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$", description="entity.column")

    @property
    def via(self) -> tuple[str, str] | None:
        """``through`` as (entity, column)."""
        if self.through is None:
            return None
        entity, _, column = self.through.partition(".")
        return entity, column


EVENT_COLUMNS = {
    "event_id": True, "visitor_id": True, "event_type": True, "event_at": True,
    "customer_id": False, "product_id": False, "campaign": False, "user_agent": False,
}  # fmt: skip
"""What ``events`` may name, and whether it must."""

SchemaPolicy = Literal["evolve", "freeze", "quarantine"]
"""What a column that neither the YAML nor an earlier day knows does.

``evolve``: it is added, nullable, down to staging, with a warning. ``freeze``: the gate stops the batch and names
it. ``quarantine``: rows in which it has a value are set aside.
"""


RESERVED = ("partition_on", "partition_month", "known_at")
"""Columns that ingest adds, beside those that begin with an underscore, which ``Name`` refuses."""


class Entity(_Strict):
    """A table of a source. ``key`` is unique per business day in raw; the newest version of a day is the one kept."""

    key: list[Name] = Field(min_length=1)
    columns: dict[Name, Column] = Field(min_length=1)
    read: dict[str, Any] = Field({}, description="What the connector needs to find it; see its `Read`.")
    cursor: Name | None = Field(None, description="Column that says when the row became known.")
    schema_policy: SchemaPolicy = "freeze"
    ignore: list[str] = Field([], description="Columns of the source that are known and not read.")
    deletes: Deletes | None = None
    changes: dict[Thing, Change] = Field(
        {},
        description="Which column names the orders, customers and products that a changed row touches. Default: "
        "order_id names orders; where there is none, product_id names products, but not in a `snapshot`, which has all "
        "of them each day.",
    )
    quarantine_threshold: float | None = Field(None, ge=0, le=1, description="Default EMPORIUM_QUARANTINE_THRESHOLD.")
    rules: list[RowRule] = []
    min_rows: MinRows | None = None
    events: dict[Name, str] | None = Field(
        None, description="stream: conformed event column -> SQL over the typed columns; see spark_jobs.events."
    )

    @model_validator(mode="before")
    @classmethod
    def _changes(cls, value: Any) -> Any:
        """``orders: order_id`` for ``orders: {column: order_id}``, and the defaults."""
        if not isinstance(value, dict) or not isinstance(value.get("columns"), dict) or "events" in value:
            return value
        found = {
            thing: {"column": one} if isinstance(one, str) else one
            for thing, one in (value.get("changes") or {}).items()
        }
        if "order_id" in value["columns"]:
            found.setdefault("orders", {"column": "order_id"})
        elif "product_id" in value["columns"] and not (value.get("read") or {}).get("snapshot"):
            found.setdefault("products", {"column": "product_id"})
        return {**value, "changes": found}

    @field_validator("columns")
    @classmethod
    def _not_reserved(cls, value: dict[str, Column]) -> dict[str, Column]:
        for name in value:
            if name in RESERVED:
                raise ValueError(f"{name} is what ingest adds to every row: name the column otherwise and say `from:`")
        return value

    @model_validator(mode="after")
    def _names_exist(self) -> Entity:
        for field, names in {
            "key": self.key,
            "cursor": [self.cursor] if self.cursor else [],
            "deletes": [self.deletes.column] if self.deletes and self.deletes.column else [],
            "changes": [one.column for one in self.changes.values()],
        }.items():
            for name in names:
                if name not in self.columns:
                    raise ValueError(f"`{field}` names {name}, which is not among the columns")
        for name in self.key:
            column = self.columns[name]
            if not column.required or column.severity != "critical":
                raise ValueError(f"key column {name} must be `required: true` with severity critical")
        if self.events is not None:
            if unknown := sorted(set(self.events) - set(EVENT_COLUMNS)):
                raise ValueError(f"`events` has no {unknown[0]}; its columns are: {', '.join(EVENT_COLUMNS)}")
            if missing := [name for name, is_needed in EVENT_COLUMNS.items() if is_needed and name not in self.events]:
                raise ValueError(f"`events` must say what is the {missing[0]}")
            if self.deletes:
                raise ValueError("an event is not deleted: `events` and `deletes` exclude each other")
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError("two rules share a name")
        return self

    @property
    def source_columns(self) -> dict[str, str]:
        """Raw name -> name in the source."""
        return {name: column.source_name or name for name, column in self.columns.items()}


class Lookup(_Strict):
    """A small table ``int_<name>__<source>`` that staging looks things up in.

    What differs in it since the last build touches the orders whose rows in ``used_by`` have its key in ``column``.
    """

    used_by: Provided
    column: Name


class Source(_Strict):
    """A source: where its rows come from and what they are."""

    source: Name
    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="The connector's name.")]
    group: Name = Field("", description="Sources that a night takes together; default the source's own name.")
    marketplace: Name
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    country: str | None = Field(None, pattern=r"^[A-Z]{2}$", description="ISO 3166-1: where the marketplace sells.")
    time_zone: str = Field("UTC", description="Zone of times that carry none.")
    late_days: Annotated[int, Field(ge=0, le=31)] = Field(
        0, description="Days that each landing looks back at for rows that came into the source late."
    )
    provides: list[Provided] = []
    lookups: dict[Name, Lookup] = Field({}, description="Tables that staging models of orders look things up in.")
    connection: dict[str, Any] = Field({}, description="Where it is; see the connector's `Connection`.")
    entities: dict[Name, Entity] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _own_group(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("group"):
            value = {**value, "group": value.get("source")}
        return value

    @field_validator("provides")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("an entity is listed twice")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not a time zone such as Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _events_once(self) -> Source:
        found = [name for name, entity in self.entities.items() if entity.events]
        if len(found) > 1:
            raise ValueError(f"{' and '.join(found)} both have `events`: give each a source of its own")
        if found and "sessions" in self.entities:
            raise ValueError("raw.sessions is what becomes of the events: give the entity `sessions` another name")
        return self

    @model_validator(mode="after")
    def _changes_are_found(self) -> Source:
        for name, entity in self.entities.items():
            for thing, change in entity.changes.items():
                if change.via is None:
                    continue
                other, column = change.via
                there = self.entities.get(other)
                if there is None or column not in there.columns:
                    raise ValueError(f"`changes` of {name}: there is no {change.through}")
                if thing not in there.changes or there.changes[thing].through:
                    raise ValueError(f"`changes` of {name}: {other} itself must name {thing} by a column")
        return self

    @model_validator(mode="after")
    def _fits_connector(self) -> Source:
        from include.ingest.connectors import connector_class

        connector_class(self.type).check_source(self)
        return self

    @property
    def raw_entities(self) -> dict[str, Entity]:
        """The entities that have a raw table; events stay in the lake and only their sessions come to Postgres."""
        return {name: entity for name, entity in self.entities.items() if entity.events is None}

    @property
    def raw_schema(self) -> str:
        """Schema of the source's raw tables."""
        return f"raw_{self.source}"


def parse_source(path: Path) -> Source:
    """The source in a YAML file. ``ValueError`` names the file and the field that is wrong."""
    try:
        return Source.model_validate(yaml.load(path.read_text(), Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {error}") from error
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in one['loc']) or 'the file'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise ValueError(f"{path.name}: " + "; ".join(problems)) from error


@lru_cache
def load_source(name: str) -> Source:
    """The source called ``name``. ``ValueError`` names the known ones, or the file and field that is wrong."""
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in FOLDER.glob("*.yaml")))
        raise ValueError(f"There is no source {name!r}; sources are: {known}.")
    source = parse_source(path)
    if source.source != name:
        raise ValueError(f"{path.name}: source: must be {name}, the file's name")
    return source


def sources(group: str | None = None) -> list[Source]:
    """All sources of a group (``demo``, ``olist``, ``online_retail``), or all there are, by name."""
    found = [load_source(path.stem) for path in sorted(FOLDER.glob("*.yaml"))]
    return [one for one in found if group in (None, one.group)]
