"""A touched key says which raw table told of it: an order that was only delivered has the items that it had."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for table, meant in (
        ("touched_key", "what loads changed and no dbt build has taken"),
        ("touched_work", "what dbt builds took out of ops.touched_key, until one of them is green"),
    ):
        op.execute(
            f"""
            alter table ops.{table} add column told_by text not null default '';
            alter table ops.{table} drop constraint {table}_pkey;
            alter table ops.{table} add primary key (source, thing, key, told_by);
            comment on table ops.{table} is 'Grain: source, thing (orders, customers, products, session_days), key, told_by: {meant}';
            comment on column ops.{table}.told_by is 'The raw table whose rows differ; empty: any'
            """
        )
