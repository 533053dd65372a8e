"""Warehouse migrations: ``python -m include.warehouse.migrate`` brings roles and schemas to head."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from include.warehouse.engine import engine
from include.warehouse.roles import ensure_roles_and_databases


def migrate() -> str:
    """Bring roles, databases and the warehouse's schemas to head; returns the revision. Idempotent.

    An advisory lock makes two starts take turns.
    """
    ensure_roles_and_databases()
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine().begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('emporium.migrate'))"))
        connection.execute(sa.text("create schema if not exists ops"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return connection.execute(sa.text("select version_num from ops.alembic_version")).scalar_one()


if __name__ == "__main__":
    print(f"warehouse at revision {migrate()}")
