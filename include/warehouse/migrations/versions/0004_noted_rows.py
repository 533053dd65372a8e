"""Tests of a night ask how many rows it noted as others (macros/tests/row_count_within.sql)."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("grant select on ops.unpublished to transformer")
