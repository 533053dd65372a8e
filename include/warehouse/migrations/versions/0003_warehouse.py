"""The warehouse that analysts trust: what a night has to build anew."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statements in (TOUCHED, PUBLISHED, ANALYST):
        op.get_bind().connection.driver_connection.execute(statements)


# --- touched keys: decision 0011 -----------------------------------------------------------------

TOUCHED = """
create table ops.touched_key (
  source text not null,
  thing text not null,
  key text not null,
  touched_at timestamptz not null default now(),
  primary key (source, thing, key)
);
comment on table ops.touched_key is
  'Grain: source, thing (orders, customers, products, session_days), key: what loads changed and no dbt build has taken';

create table ops.touched_work (
  source text not null,
  thing text not null,
  key text not null,
  primary key (source, thing, key)
);
comment on table ops.touched_work is
  'Grain: source, thing, key: what dbt builds took out of ops.touched_key, until one of them is green';

create table ops.warehouse_state (
  is_newest boolean primary key default true check (is_newest),
  fingerprint text not null,
  built_at timestamptz not null default now()
);
comment on table ops.warehouse_state is 'One row: the code and the sources that the newest green dbt build was made of';

grant select, insert, update on ops.touched_key to loader;
grant select, update, delete on ops.touched_key to transformer;
grant select, insert, delete on ops.touched_work to transformer;
grant select, insert, update on ops.warehouse_state to transformer;
grant select on ops.touched_key, ops.touched_work, ops.warehouse_state to loader, publisher;
"""


# --- what BI reads, and vendors: decision 0012 ---------------------------------------------------

PUBLISHED = """
create table ops.unpublished (
  mart text not null,
  scope jsonb
);
comment on table ops.unpublished is
  'Rows of a mart that dbt replaced since it was published, as {column: value}; a null scope says: built in place';

create table ops.published_mart (
  mart text primary key,
  core_filenode oid not null,
  columns text[] not null,
  n_rows bigint not null,
  checksum text not null,
  published_at timestamptz not null default now()
);
comment on table ops.published_mart is 'Grain: mart: the table of core it was merged from, and what it holds';

create table ops.vendor_access (
  role_name text not null,
  marketplace text not null,
  vendor_id text not null,
  granted_at timestamptz not null default now(),
  primary key (role_name, marketplace, vendor_id)
);
comment on table ops.vendor_access is 'Grain: login, marketplace, vendor: whose rows a vendor''s login sees';

grant insert on ops.unpublished to transformer;
grant select, delete on ops.unpublished to publisher;
grant select, insert, update on ops.published_mart to publisher;

-- The policies of published tables read it with the vendor's rights; without usage of ops it has no other way in.
alter table ops.vendor_access enable row level security;
create policy own_login on ops.vendor_access for select to vendor_reader using (role_name = current_user);
grant select on ops.vendor_access to vendor_reader;
grant usage on schema bi to vendor_reader, analyst;

do $$ declare found record; begin
  for found in select c.oid::regclass as name from pg_class c join pg_namespace n on n.oid = relnamespace
               where nspname = 'predictions' and relkind = 'p' or nspname = 'published' and relkind = 'r' loop
    execute format('grant select on %s to bi_reader, analyst', found.name);
  end loop;
  for found in select c.oid::regclass as name from pg_class c join pg_namespace n on n.oid = relnamespace
               where nspname = 'bi' and relkind = 'v' loop
    execute format('alter view %s set (security_invoker = true)', found.name);
    execute format('grant select on %s to analyst', found.name);
  end loop;
end $$;
"""


# --- analysts: docs/add-a-model.md -----------------------------------------------------------------

# Read what dbt makes and what it is made of; write in schemas dev_<user> and nowhere else.
ANALYST = """
do $$ begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format('grant analyst to %I', current_user)
      || case when current_setting('server_version_num')::int >= 160000 then ' with set true' else '' end;
  end if;
  execute format('grant temporary on database %I to analyst', current_database());
end $$;

grant usage on schema staging, intermediate, core, dbt_tests, ops to analyst;
grant select on all tables in schema ops to analyst;
alter default privileges for role transformer in schema staging, intermediate, core, dbt_tests
  grant select on tables to analyst;
set local role transformer;
grant select on all tables in schema staging, intermediate, core, dbt_tests to analyst;
reset role;

create function ops.make_dev_schema(name text) returns void
language plpgsql security definer set search_path = pg_catalog as $$
begin
  if name !~ '^dev_[a-z0-9_]{1,59}$' then
    raise exception 'An analyst''s schema is called dev_<user>, not %', name;
  end if;
  execute format('create schema if not exists %I authorization analyst', name);
end $$;
comment on function ops.make_dev_schema is 'Makes dev_<user>, which the role analyst owns: it may make no other schema';
revoke all on function ops.make_dev_schema from public;
grant execute on function ops.make_dev_schema to analyst;
"""
