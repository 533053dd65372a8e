"""Sources as YAML: one file in ``include/sources`` says what is read, how it is typed and which rules hold.

``docs/add-a-source.md`` walks through a file.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from include.ops import Severity

FOLDER = Path(__file__).resolve().parent.parent / "sources"

ColumnType = Literal["text", "integer", "bigint", "numeric(18,4)", "timestamptz", "date", "boolean"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,50}$")]
Provided = Literal["orders", "order_items", "payments", "deliveries", "products", "vendors", "customers", "events"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Column(_Strict):
    """A raw column: where it comes from, its type, and the rules that a row must keep.

    Each rule has a name of its own in the quarantine: ``<column>_is_present``, ``<column>_is_<type>``,
    ``<column>_is_in_range``, ``<column>_is_known`` (``in``), ``<column>_matches`` (``pattern``).
    """

    type: ColumnType = "text"
    source_name: str | None = Field(None, alias="from", description="Name in the source; default the column's own.")
    required: bool = False
    pseudonym: Name | None = Field(None, description="Namespace: replace the value before anything is written.")
    upper: bool = Field(False, description="Fold to upper case: keys that the source writes both ways.")
    min: float | None = None
    max: float | None = None
    values: list[str] | None = Field(None, alias="in")
    pattern: str | None = None
    severity: Severity = "critical"

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


class Known(_Strict):
    """Replay only: how we know on which day the shop knew a row of the dump.

    - ``column``: at the time in ``column``
    - ``with``: when the row of ``entity`` with the same ``key`` became known
    - ``first_day``: catalogue data, known from the first day on that is landed
    - ``order_lifecycle``: one version per day on which the order changed (see ``include.ingest.replay``)
    """

    by: Literal["column", "with", "first_day", "order_lifecycle"]
    column: str | None = None
    entity: str | None = None
    key: str | None = None


class Entity(_Strict):
    """A table of a source. ``key`` is unique per business day in raw; later lines of a day replace earlier ones."""

    key: list[Name] = Field(min_length=1)
    columns: dict[Name, Column] = Field(min_length=1)
    file: str | None = Field(None, description="File adapters: file name without .csv or .jsonl.")
    table: str | None = Field(None, description="sql: a table of the schema.")
    query: str | None = Field(None, description="sql: a query instead of a table.")
    known_at: str | None = Field(None, description="Column that says when the row became known (sql: the cursor).")
    known: Known | None = None
    numbered_within: Name | None = Field(
        None, description="Replay: fill the last key column with the line's position in this column's group."
    )
    optional: bool = Field(False, description="Daily files: a day without the file is a day without rows.")
    rules: list[RowRule] = []
    min_rows: MinRows | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Entity:
        for field, names in {
            "key": self.key,
            "known_at": [self.known_at] if self.known_at and not (self.table or self.query) else [],
            "numbered_within": [self.numbered_within] if self.numbered_within else [],
        }.items():
            for name in names:
                if name not in self.columns:
                    raise ValueError(f"`{field}` names {name}, which is not among the columns")
        for name in self.key:
            column = self.columns[name]
            if not column.required or column.severity != "critical":
                raise ValueError(f"key column {name} must be `required: true` with severity critical")
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError("two rules share a name")
        return self

    @property
    def source_columns(self) -> dict[str, str]:
        """Raw name -> name in the source, without the column that the replay numbers itself."""
        made = {self.key[-1]} if self.numbered_within else set()
        return {name: column.source_name or name for name, column in self.columns.items() if name not in made}


class Source(_Strict):
    """A source: where its rows come from and what they are."""

    source: Name
    group: Literal["demo", "olist", "online_retail"]
    adapter: Literal["sql", "daily_csv", "daily_jsonl", "replay"]
    marketplace: Name
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    provides: list[Provided] = Field(min_length=1)
    folder: str | None = Field(None, description="Daily files: folder under the home.")
    database: str | None = Field(None, description="sql: suffix of the neighbour database.")
    role: str | None = Field(None, description="sql: the role that reads.")
    db_schema: str | None = Field(None, alias="schema", description="sql: the schema that holds the tables.")
    entities: dict[Name, Entity] = Field(min_length=1)

    @field_validator("provides")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("an entity is listed twice")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Source:
        needs = {"sql": ("database", "role", "db_schema"), "daily_csv": ("folder",), "daily_jsonl": ("folder",)}
        for field in needs.get(self.adapter, ()):
            if getattr(self, field) is None:
                raise ValueError(f"adapter {self.adapter} needs `{'schema' if field == 'db_schema' else field}`")
        for name, entity in self.entities.items():
            if self.adapter == "sql":
                if bool(entity.table) == bool(entity.query) or not entity.known_at:
                    raise ValueError(f"entity {name}: adapter sql needs `known_at` and one of `table` and `query`")
            elif self.adapter == "replay":
                if not entity.file or not entity.known:
                    raise ValueError(f"entity {name}: adapter replay needs `file` and `known`")
                other = entity.known.entity
                if entity.known.by == "with" and (other not in self.entities or not entity.known.key):
                    raise ValueError(f"entity {name}: known by `with` needs an `entity` of this source and `key`")
                if entity.known.by == "column" and entity.known.column not in entity.columns:
                    raise ValueError(f"entity {name}: known by `column` needs a `column` of the entity")
            elif self.adapter == "daily_csv" and not entity.file:
                raise ValueError(f"entity {name}: adapter daily_csv needs `file`")
        if self.adapter == "daily_jsonl" and len(self.entities) != 1:
            raise ValueError("adapter daily_jsonl has one file a day and so one entity")
        return self

    @property
    def raw_schema(self) -> str:
        """Schema of the source's raw tables."""
        return f"raw_{self.source}"


def parse_source(path: Path) -> Source:
    """The source in a YAML file. ``ValueError`` names the file and the field that is wrong."""
    try:
        return Source.model_validate(yaml.safe_load(path.read_text()))
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
