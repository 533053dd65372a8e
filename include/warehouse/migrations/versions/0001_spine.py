"""Schemas, operations tables, prediction tables, BI views, grants."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.get_bind().connection.driver_connection.execute(STATEMENTS)


STATEMENTS = """
do $$ begin
  execute format('revoke create on schema public from public');
  execute format('grant create on database %I to loader, transformer', current_database());
  execute format('revoke temporary on database %I from public', current_database());
  execute format('grant temporary on database %I to loader, transformer, scorer, publisher', current_database());
end $$;

create schema quarantine;
create schema staging;
create schema intermediate;
create schema core;
create schema dbt_tests;
create schema predictions_stage;
create schema predictions;
create schema published;
create schema bi;
comment on schema quarantine is 'Rows that broke a rule, with file, line and the rule''s name';
comment on schema core is 'What dbt builds: facts, dimensions and versions; nothing BI reads hangs on it';
comment on schema published is 'The audited copy of core that BI reads, merged in one transaction a night';
comment on schema predictions is 'Published predictions, one partition per as_of';
comment on schema bi is 'Views for BI tools and apps: the only schema bi_reader sees';

grant all on schema quarantine to loader;
grant all on schema staging, intermediate, core, dbt_tests to transformer;
grant all on schema predictions_stage to scorer;
grant all on schema predictions, published to publisher;
grant usage, create on schema bi to publisher;
grant usage on schema bi to bi_reader;
grant usage on schema predictions_stage, core to publisher;
grant usage on schema core to scorer, loader;
grant usage on schema predictions, published to scorer;
grant usage on schema ops to loader, transformer, scorer, publisher;

do $$ begin
  execute 'alter default privileges for role transformer in schema core grant select on tables to publisher, scorer, loader';
  execute 'alter default privileges for role scorer in schema predictions_stage grant select on tables to publisher';
  execute 'alter default privileges for role publisher in schema predictions, published grant select on tables to scorer';
  execute 'alter default privileges for role publisher in schema bi grant select on tables to bi_reader';
exception when insufficient_privilege then
  -- Postgres 16+: CREATEROLE gives ADMIN, not SET; grant the roles to ourselves, then try again.
  execute (format('grant loader, transformer, scorer, publisher to %I', current_user)
    || case when current_setting('server_version_num')::int >= 160000 then ' with set true' else '' end);
  execute 'alter default privileges for role transformer in schema core grant select on tables to publisher, scorer, loader';
  execute 'alter default privileges for role scorer in schema predictions_stage grant select on tables to publisher';
  execute 'alter default privileges for role publisher in schema predictions, published grant select on tables to scorer';
  execute 'alter default privileges for role publisher in schema bi grant select on tables to bi_reader';
end $$;

create table ops.load_audit (
  run_id text not null,
  source text not null,
  entity text not null,
  partition_on date not null,
  n_in bigint not null,
  n_loaded bigint not null,
  n_duplicate bigint not null,
  n_quarantined bigint not null,
  checksum text not null,
  loaded_at timestamptz not null default now(),
  primary key (source, entity, partition_on),
  constraint every_row_counted check (n_in = n_loaded + n_duplicate + n_quarantined)
);
comment on table ops.load_audit is 'Grain: source, entity, business day. rows in = loaded + duplicate + quarantined';

create table ops.quality_result (
  run_id text not null,
  gate text not null,
  target text not null,
  as_of date not null,
  rule text not null,
  severity text not null check (severity in ('critical', 'warning')),
  is_passed boolean not null,
  n_checked bigint not null,
  n_failed bigint not null,
  observed jsonb not null default '{}'::jsonb,
  checked_at timestamptz not null default now(),
  primary key (gate, target, as_of, rule)
);
comment on table ops.quality_result is 'Grain: gate, target, business day, rule; the newest verdict';

create table ops.run_ledger (
  token bigint generated always as identity primary key,
  target text not null,
  as_of date not null,
  run_id text not null,
  state text not null default 'started'
    check (state in ('started', 'staged', 'audited', 'published', 'unchanged', 'refused', 'rejected', 'rolled_back')),
  stage_table text,
  n_rows bigint,
  checksum text,
  detail text,
  started_at timestamptz not null default now(),
  finished_at timestamptz
);
create index on ops.run_ledger (target, as_of, token desc);
comment on table ops.run_ledger is 'Every attempt to write a published table. token is the fencing token: only the newest may publish';

create table ops.publication (
  target text not null,
  as_of date not null,
  token bigint not null,
  n_rows bigint not null,
  checksum text not null,
  published_at timestamptz not null default now(),
  primary key (target, as_of)
);
comment on table ops.publication is 'What is live: grain target, as_of';

create table ops.model_decision (
  use_case text not null,
  as_of date not null,
  champion_name text not null,
  champion_version text not null,
  champion_run_id text,
  challenger_version text,
  challenger_run_id text,
  is_promoted boolean not null,
  metric text not null,
  challenger_value double precision,
  incumbent_value double precision,
  baseline_name text not null,
  baseline_value double precision,
  ci_low double precision,
  ci_high double precision,
  data_fingerprint text not null,
  reason text not null,
  decided_at timestamptz not null default now(),
  primary key (use_case, as_of)
);
comment on table ops.model_decision is 'Grain: use case, business day: who is champion as of the day, and why';

create table ops.lake_export (
  table_name text not null,
  known_month date not null,
  n_rows bigint not null,
  checksum text not null,
  exported_at timestamptz not null default now(),
  primary key (table_name, known_month)
);

create table ops.monitor_result (
  as_of date not null,
  check_name text not null,
  subject text not null,
  value double precision,
  threshold double precision,
  is_ok boolean not null,
  severity text not null check (severity in ('critical', 'warning', 'info')),
  detail text not null default '',
  checked_at timestamptz not null default now(),
  primary key (as_of, check_name, subject)
);
comment on table ops.monitor_result is 'Grain: business day, check, subject: freshness, volume, drift, forecast against actual';

grant select on all tables in schema ops to loader, transformer, scorer, publisher;
grant insert, update, delete on ops.load_audit, ops.lake_export to loader;
grant insert, update, delete on ops.quality_result to loader, transformer, scorer, publisher;
grant insert, update on ops.run_ledger to scorer, publisher;
grant insert, update, delete on ops.publication to publisher;
grant insert, update, delete on ops.model_decision to scorer;
grant insert, update, delete on ops.monitor_result to scorer, publisher;

create table predictions.demand_forecast (
  as_of date not null,
  marketplace text not null,
  product_id text not null,
  forecast_on date not null,
  p10 double precision not null,
  p50 double precision not null,
  p90 double precision not null,
  model_name text not null,
  model_version text not null,
  published_at timestamptz not null default now(),
  primary key (as_of, marketplace, product_id, forecast_on)
) partition by list (as_of);
comment on table predictions.demand_forecast is 'Grain: as_of, marketplace, product, day. Units sold, quantiles';

create table predictions.demand_forecast_category (
  as_of date not null,
  marketplace text not null,
  category text not null,
  forecast_on date not null,
  p10 double precision not null,
  p50 double precision not null,
  p90 double precision not null,
  model_name text not null,
  model_version text not null,
  published_at timestamptz not null default now(),
  primary key (as_of, marketplace, category, forecast_on)
) partition by list (as_of);
comment on table predictions.demand_forecast_category is 'Grain: as_of, marketplace, category, day. Units sold, quantiles';

create table predictions.churn_score (
  as_of date not null,
  customer_id text not null,
  churn_probability double precision not null check (churn_probability between 0 and 1),
  decile smallint not null check (decile between 1 and 10),
  reason_1 text,
  reason_2 text,
  reason_3 text,
  model_name text not null,
  model_version text not null,
  published_at timestamptz not null default now(),
  primary key (as_of, customer_id)
) partition by list (as_of);
comment on table predictions.churn_score is 'Grain: as_of, customer. Probability of no order within the horizon; decile 1 is the most at risk';

alter table predictions.demand_forecast owner to publisher;
alter table predictions.demand_forecast_category owner to publisher;
alter table predictions.churn_score owner to publisher;
grant select on all tables in schema predictions to scorer;

do $$ declare t text; begin
  foreach t in array array['demand_forecast', 'demand_forecast_category', 'churn_score'] loop
    execute format('create view bi.%I as select * from predictions.%I', t, t);
    execute format('create view bi.%I as select * from predictions.%I where as_of = (select max(as_of) from predictions.%I)', t || '_latest', t, t);
    execute format('alter view bi.%I owner to publisher', t);
    execute format('alter view bi.%I owner to publisher', t || '_latest');
  end loop;
end $$;
grant select on all tables in schema bi to bi_reader;
"""
