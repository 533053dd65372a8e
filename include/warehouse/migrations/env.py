"""Alembic's entry: the connection comes from `include.warehouse.migrate`, never from an ini file."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table_schema="ops", transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
