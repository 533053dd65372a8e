"""Indexes that only readers of ``bi`` need are made where they read, not in ``core`` (docs/decisions/0007)."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(
        """
        create table ops.bi_index (
          mart text not null,
          columns text[] not null,
          primary key (mart, columns)
        );
        comment on table ops.bi_index is
          'Grain: mart, columns: an index that what BI reads of the mart has, and the table of core has not';
        comment on column ops.bi_index.columns is 'The columns of the index, in its order';
        grant select, insert, delete on ops.bi_index to transformer;
        grant select on ops.bi_index to publisher, analyst
        """
    )
