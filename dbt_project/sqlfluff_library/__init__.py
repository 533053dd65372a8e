"""What sqlfluff's jinja templater renders in place of the project's macros that need dbt's own `return` and vars.

Linting so needs neither dbt nor a database. Shapes are stand-ins: sqlfluff looks at layout, not at meaning.
"""

SOURCES = {"demo_outlet": {"marketplace": "demo_outlet", "currency": "USD", "provides": ["orders", "deliveries"]}}


def all_sources() -> dict:
    """One source is enough to render every branch."""
    return SOURCES


def sources_with(entity: str) -> list[str]:
    """Sources that provide ``entity``."""
    return [name for name, about in SOURCES.items() if entity in about["provides"]]


def conformed_columns(entity: str) -> dict[str, str]:
    """Two columns stand for all."""
    return {"marketplace": "text", "known_at": "timestamptz"}


def union_sources(entity: str, only: list | None = None, without: tuple = ()) -> str:
    """A select as any other."""
    return f"select *\n    from stg_source__{entity}"


def evolved(source_name: str, table: str, of: str | None = None) -> str:
    """A column that the table gained."""
    return ",\n    gained"


def marketplace(source_name: str) -> str:
    """A literal."""
    return f"'{source_name}'"


def currency(source_name: str) -> str:
    """A literal."""
    return "'USD'"


def opencart_statuses() -> dict[int, str]:
    """One of them."""
    return {1: "created"}


def opencart_status(status_id: str) -> str:
    """A column like any other."""
    return status_id


def opencart_names(table: str, key: str) -> str:
    """A select as any other."""
    return f"select *\n    from {table}"
