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


def opencart_freight_shares(items: str, freight: str, by: list[str]) -> str:
    """A select as any other."""
    return f"select *\n    from {items}\n    left join {freight} using (order_id)"


def opencart_vendors(table: str) -> str:
    """A select as any other."""
    return f"select *\n    from {table}"


def with_taken_out(seen: str, days: str, group: list[str], key: list[str], columns: list[str]) -> str:
    """A select of both."""
    return f"select *\n    from {seen}\n    union all\n    select *\n    from {days}"


def opencart_adjustment(code: str) -> str:
    """A column like any other."""
    return code


def raw(source_name: str, entity: str, thing: str = "orders") -> str:
    """A select that needs an alias, as in an incremental build."""
    return f"(select * from raw_{source_name}.{entity})"


def where_touched(thing: str, alias: str | None = None, columns: list | None = None) -> str:
    """A condition."""
    return "true"


def is_told_of(entities: list[str]) -> str:
    """A condition."""
    return "true"


def contents_of_orders() -> list[str]:
    """Conformed entities."""
    return ["order_items"]


def where_stale(columns: list[str], alias: str, condition: str | None = None) -> str:
    """A condition."""
    return "true"


def touched(thing: str) -> str:
    """A relation."""
    return f"int_touched__{thing}"


def touched_keys(thing: str) -> str:
    """A relation."""
    return f"int_touched__{thing}"


def months_of_buyers() -> str:
    """A relation as any other."""
    return "int_touched__buyers"


def rfm_scored() -> str:
    """A select as any other."""
    return "select *\n    from int_customers__months"


def reporting(amount: str, rate: str) -> str:
    """A column like any other."""
    return f"({amount} * {rate})"


def reporting_currency() -> str:
    """A literal."""
    return "'EUR'"


def newest_loaded_day() -> str:
    """A column like any other."""
    return "now()"


def max_lookback_days() -> int:
    """A number."""
    return 1


def marketplaces_of_sources() -> str:
    """A relation of two columns."""
    return "(values ('a', 'b'))"


def left_by_last_build(name: str, columns: dict) -> str:
    """A relation."""
    return name


def digests_of_orders(which: str, keys: str, relations: dict | None = None) -> str:
    """A select as any other."""
    return f"select *\n    from {keys}"


def is_incremental() -> bool:
    """Models are linted as they are in a full refresh."""
    return False


def history_of(relation: str, keys: list[str], columns: list[str]) -> str:
    """A select of what the histories' models name."""
    return f"select *\n    from {relation}"


def as_of_join(history: str, keys: list[str], on: str, of: str, name: str = "history", strict: bool = False) -> str:
    """A join."""
    same = " and ".join(f"{of}.{key} = {name}.{key}" for key in keys)
    return f"left join {history} as {name} on {same}"


def price_periods() -> str:
    """A select as any other."""
    return "select * from int_products__prices"


def rfm_months() -> str:
    """A select as any other."""
    return "select month_on from int_customers__months"


def segment_changes() -> str:
    """A select as any other."""
    return "select *\n    from rpt_rfm_month"


def is_night_by_keys() -> bool:
    """Tests are linted as they are when they look at all rows."""
    return False


def touched_rows(tested: str, thing: str | None = None) -> str:
    """A relation."""
    return tested


def orders_of_work() -> str:
    """A select as any other."""
    return "select *\n    from ops.touched_work"


def depend_on_lookups() -> str:
    """Nothing to see."""
    return ""


def as_number(key: str) -> str:
    """An expression."""
    return f"{key}::bigint"
