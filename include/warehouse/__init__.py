"""The warehouse: connections, COPY, migrations, roles, publishing."""

from include.warehouse.engine import connect, dsn, engine

__all__ = ["connect", "dsn", "engine"]
