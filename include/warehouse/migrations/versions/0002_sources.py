"""What sources have shown of themselves, the files of streams, and rows mended by hand."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(STATEMENTS)


STATEMENTS = """
create table ops.source_column (
  source text not null,
  entity text not null,
  column_name text not null,
  first_seen_on date not null,
  policy text check (policy in ('evolve', 'freeze', 'quarantine')),
  primary key (source, entity, column_name)
);
comment on table ops.source_column is
  'Grain: source, entity, column that the source has and the YAML does not name. No policy: there from the first day on';

create table ops.stream_file (
  source text not null,
  file text not null,
  sha256 text not null,
  n_bytes bigint not null,
  n_lines bigint not null,
  take text not null,
  partition_on date not null,
  taken_at timestamptz not null default now(),
  primary key (source, file, sha256)
);
comment on table ops.stream_file is 'Grain: source, file, content: the business day and the run (take) that took the file of a stream';

create table quarantine._mended (
  source text not null,
  entity text not null,
  partition_on date not null,
  file text not null,
  line bigint not null,
  original_sha256 text not null,
  payload jsonb not null,
  mended_by text not null default current_user,
  mended_at timestamptz not null default now(),
  primary key (source, entity, partition_on, file, line)
);
comment on table quarantine._mended is
  'Grain: source, entity, day, file, line: what stands in for a quarantined row, as long as the row is the same';

grant select, insert, update, delete on ops.source_column, ops.stream_file, quarantine._mended to loader;
grant select on ops.source_column to transformer;
"""
