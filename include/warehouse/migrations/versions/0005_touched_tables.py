"""A touched key says which raw table told of it: an order that was only delivered has the items that it had."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for table, meant in (("touched_key", "no dbt build has taken"), ("touched_work", "no green dbt build has built")):
        op.execute(
            f"""
            alter table ops.{table} add column told_by text not null default '';
            alter table ops.{table} drop constraint {table}_pkey;
            alter table ops.{table} add primary key (source, thing, key, told_by);
            comment on table ops.{table} is
              'Grain: source, thing (orders, customers, products, session_days, ...), key, raw table that told of it ('''': any): what loads changed and {meant}'
            """
        )
