"""What BI tools and vendors read: whole nights only, whatever dbt does meanwhile, and nobody else's rows."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from include import dbt
from include.cli import app
from include.ingest.tables import prepare
from include.secrets import secret
from include.settings import ROOT
from include.warehouse import access, marts
from include.warehouse.engine import ROLES, connect
from include.warehouse.roles import VENDORS
from tests.integration.test_dbt_build import empty_raw, fill_raw
from tests.integration.test_publish import forget_marts

pytestmark = pytest.mark.integration

DAY = date(2025, 1, 2)
MODELS = ["+fact_order", "+fact_order_item", "+dim_vendor"]
ACME, BOLT = "acme_probe", "bolt_probe"
"""Logins: acme is vendor 1 of demo_shop and s1 of olist, bolt V1 of demo_outlet."""

OPEN = {"dim_date", "dim_geography", "dim_holiday", "dim_marketplace", "dim_product"}
"""What a vendor reads of all, as docs/bi.md says; of products some columns only."""

BESIDE = {"transformer": "dbt_tests.probe", "scorer": "predictions_stage.probe"}

MATRIX = """
| schema | `loader` | `transformer` | `scorer` | `publisher` | `analyst` | `bi_reader` | `vendor_reader` | a vendor's login |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| `bi` | - | - | - | uc SIUDT | u S | u S | u s | u s |
| `core` | u S | uc SIUDT | u S | u S | u S | - | - | - |
| `dbt_tests` | - | uc SIUDT | - | - | u S | - | - | - |
| `dev_*` | - | - | - | - | uc SIUDT | - | - | - |
| `intermediate` | - | uc SIUDT | - | - | u S | - | - | - |
| `ops` | u siud | u siud | u siud | u siud | u S | - | s | s |
| `predictions` | - | - | u S | uc SIUDT | S | S | - | - |
| `predictions_stage` | - | - | uc SIUDT | u S | - | - | - | - |
| `public` | u | u | u | u | u | u | u | u |
| `published` | - | - | u S | uc SIUDT | S | S | s | s |
| `quarantine` | uc SIUDt | - | - | - | - | - | - | - |
| `raw_*` | uc SIUDT | u S | - | - | u S | - | - | - |
| `staging` | - | uc SIUDT | - | - | u S | - | - | - |
"""  # noqa: E501


class Poller(threading.Thread):
    """Asks, as a BI tool does and without a pause, for what must hold in every night."""

    QUERY = """
      select (select sum(item_amount) from bi.fact_order) as of_orders,
             (select sum(item_amount) from bi.fact_order_item where (marketplace, order_id) in
               (select marketplace, order_id from bi.fact_order)) as of_items,
             (select count(*) from bi.fact_order), (select count(*) from bi.fact_order_item),
             (select count(*) from bi.dim_vendor), (select count(*) from bi.dim_product),
             (select count(*) from bi.dim_date), (select count(*) from bi.fact_probe)
    """

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.nights: dict[Any, int] = {}
        self.is_over = threading.Event()

    def run(self) -> None:
        try:
            with connect("bi_reader", autocommit=True) as conn:
                while not self.is_over.is_set():
                    row = conn.execute(self.QUERY).fetchone()
                    assert row is not None
                    of_orders, of_items, *counts = row
                    self.nights[of_orders] = self.nights.get(of_orders, 0) + 1
                    if of_orders != of_items or not all(counts):
                        self.wrong.append(f"mix of two nights, or empty: {row}")
        except psycopg.Error as error:
            self.wrong.append(str(error))

    def __enter__(self) -> "Poller":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.join()


@dataclass
class Nights:
    """What was seen before, during and after two rebuilds, publications and a schema change."""

    poller: Poller
    identities: list[dict] = field(default_factory=list)
    matrices: list[str] = field(default_factory=list)

    def look(self) -> None:
        self.identities.append(identities())
        self.matrices.append(matrix())


def identities() -> dict[str, tuple]:
    """What a rebuild must not change of a relation that BI reads: its oid, owner, grants, options and policies."""
    with connect() as conn:
        rows = conn.execute(
            """
            select c.oid::regclass::text, c.oid::int, relowner::int, relacl::text, reloptions, relrowsecurity,
                   array(select polname || pg_get_expr(polqual, polrelid) || polroles::text
                         from pg_policy where polrelid = c.oid order by 1)
            from pg_class c where relnamespace in ('bi'::regnamespace, 'published'::regnamespace)
              and relkind in ('r', 'v')
            """
        ).fetchall()
    return {row[0]: row[1:] for row in rows}


def matrix() -> str:
    """Role x schema x verb by the catalog, as the table that docs/bi.md shows; partitions taken back aside."""
    roles = [*ROLES, VENDORS, "a vendor's login"]
    verbs = ("select", "insert", "update", "delete", "truncate")
    counts = ", ".join(f"count(c.oid) filter (where has_table_privilege(r.name, c.oid, '{verb}'))" for verb in verbs)
    with connect() as conn:
        rows = conn.execute(
            f"""
            select regexp_replace(nspname, '^(raw|dev)_.*', '\\1_*') as schema, r.name,
                   bool_and(has_schema_privilege(r.name, n.oid, 'usage')),
                   bool_and(has_schema_privilege(r.name, n.oid, 'create')), count(c.oid), {counts}
            from pg_namespace n cross join unnest(%s::text[]) as r (name)
            left join pg_class c on c.relnamespace = n.oid and relkind in ('r', 'p', 'v', 'm') and not relispartition
              and relname !~ '_p[0-9]{{8}}_t[0-9]+$'
            where nspname !~ '^(pg_|information_schema)' group by 1, 2
            """,
            ([ACME if "login" in role else role for role in roles],),
        ).fetchall()
    cells = {}
    for schema, role, may_use, may_create, n, *granted in rows:
        of_schema = "u" * may_use + "c" * may_create
        of_tables = "".join(
            verb[0].upper() if n_may == n else verb[0] for verb, n_may in zip(verbs, granted, strict=True) if n_may
        )
        cells[schema, role] = " ".join(filter(None, [of_schema, of_tables])) or "-"
    lines = [["schema", *(f"`{role}`" if " " not in role else role for role in roles)], ["---"] * (len(roles) + 1)]
    for schema in sorted({schema for schema, _ in cells}):
        lines.append([f"`{schema}`", *(cells[schema, ACME if "login" in role else role] for role in roles)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows(role: str, query: str, *params: object) -> list[tuple]:
    with connect(role) as conn:
        return conn.execute(query, params).fetchall()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def nights(warehouse) -> Iterator[Nights]:
    """Real models and one made by hand, published, rebuilt twice and changed, while somebody reads."""

    def build(*options: str) -> None:
        kinds = ["--resource-type", "model", "--resource-type", "seed"]
        assert dbt.run("build", ["--select", *MODELS, *kinds, *options]) == 0

    def price(amount: str) -> None:
        with connect() as conn:
            conn.execute("update raw_demo_outlet.order_items set unit_price = %s where order_id = 'O1'", (amount,))
            conn.execute(
                "insert into ops.touched_key (source, thing, key) values ('demo_outlet', 'orders', 'O1') "
                "on conflict do nothing"
            )

    prepare()
    empty_raw()
    fill_raw()
    with connect("transformer", autocommit=True) as conn:
        conn.execute("drop table if exists core.fact_probe, core.dim_date, core.dim_product")
        conn.execute("create table core.dim_date as select '2025-01-01'::date as date_on")
        conn.execute("create unique index on core.dim_date (date_on)")
        conn.execute("create table core.dim_product (marketplace text, product_id text, product_name text,"
                     "category text, list_price_amount numeric(18,4))")  # fmt: skip
        conn.execute("create unique index on core.dim_product (product_id, marketplace)")
        conn.execute("insert into core.dim_product values ('demo_shop', '7', 'Cup', 'Kitchen', 6)")
        conn.execute("create table core.fact_probe (sale int, marketplace text, vendor_id text, amount numeric(18,4))")
        conn.execute("create unique index on core.fact_probe (sale)")
        conn.execute("create index on core.fact_probe (marketplace, vendor_id, amount)")
        conn.execute(
            "insert into core.fact_probe values (1, 'demo_shop', '1', 10), (2, 'olist', 's1', 20), "
            "(3, 'demo_shop', 's1', 30), (4, 'olist', '1', 40), (5, 'demo_outlet', 'V1', 50), (6, 'olist', null, 60)"
        )
    build()
    with connect("analyst", autocommit=True) as conn:
        conn.execute("select ops.make_dev_schema('dev_probe')")
        conn.execute("create table dev_probe.mine (id int)")
    # Schemas that are empty between two nights.
    for role, table in BESIDE.items():
        with connect(role) as conn:
            conn.execute(f"create table {table} (id int)")
    marts.publish_core(DAY)
    access.add_vendor(ACME, "demo_shop", "1")
    access.add_vendor(ACME, "olist", "s1")
    access.add_vendor(BOLT, "demo_outlet", "V1")
    with Poller() as poller:
        seen = Nights(poller)
        seen.look()
        price("1000")
        build()
        marts.publish_core(DAY)
        price("2000")
        build("--full-refresh")
        marts.publish_core(DAY)
        with connect("transformer") as conn:
            conn.execute("alter table core.fact_order add column probe text default 'p'")
            conn.execute("alter table core.fact_probe add column probe text default 'p'")
        marts.publish_core(DAY)
        marts.publish_core(DAY, full=True)
    seen.look()
    yield seen
    for login in (ACME, BOLT):
        if login in {one.login for one in access.vendor_logins()}:
            access.remove_vendor(login)
    empty_raw()
    with connect() as conn:
        conn.execute("drop schema dev_probe cascade")
        conn.execute(f"drop table {', '.join(BESIDE.values())}")
        built = conn.execute(
            "select relnamespace::regnamespace::text, relname, relkind = 'v' from pg_class "
            "where relnamespace::regnamespace::text in ('core', 'intermediate', 'staging') and relkind in ('r', 'v')"
        ).fetchall()
        for schema, name, is_view in built:
            conn.execute(
                sql.SQL("drop {} if exists {} cascade").format(
                    sql.SQL("view" if is_view else "table"), sql.Identifier(schema, name)
                )
            )
    forget_marts(*(name for schema, name, _ in built if schema == "core"))


def test_a_reader_sees_whole_nights_through_rebuilds_and_a_schema_change(nights):
    assert nights.poller.wrong == []
    assert len(nights.poller.nights) >= 3, f"every night was seen: {nights.poller.nights}"


def test_what_bi_reads_keeps_identity_grants_and_row_level_security(nights):
    before, after = nights.identities
    assert len(before) >= 12
    assert after == before
    assert rows("bi_reader", "select distinct probe from bi.fact_order") == [("p",)]


def test_indexes_that_only_bi_needs_are_told_by_dbt_and_not_in_core(nights):
    top_of_a_vendor = "btree (marketplace, vendor_id, item_amount)"
    with connect() as conn:
        assert top_of_a_vendor in marts._indexes(conn, "published", "fact_order_item")
        assert top_of_a_vendor not in marts._indexes(conn, "core", "fact_order_item")
        assert "btree (customer_id, ordered_on)" in marts._indexes(conn, "published", "fact_order")


def test_every_view_runs_with_its_readers_rights(nights):
    with connect() as conn:
        found = conn.execute(
            "select relname from pg_class where relnamespace = 'bi'::regnamespace and relkind = 'v' "
            "and not coalesce('security_invoker=true' = any (reloptions), false)"
        ).fetchall()
    assert found == []


@pytest.mark.parametrize("when", [0, 1], ids=["after the first build", "after two rebuilds"])
def test_roles_may_do_what_is_declared_and_nothing_else(nights, when):
    assert nights.matrices[when].splitlines() == MATRIX.strip().splitlines()


def test_the_documented_matrix_is_the_tested_one():
    assert MATRIX.strip() in (ROOT / "docs" / "bi.md").read_text()


def test_tables_with_vendors_are_theirs_by_row_and_others_not_at_all(nights):
    """By the catalog: what a vendor's login may select, and whether row-level security is on."""
    with connect() as conn:
        found = conn.execute(
            """
            select relname, has_any_column_privilege(%s, c.oid, 'select'), relrowsecurity,
                   array(select attname::text from pg_attribute where attrelid = c.oid) @> '{marketplace,vendor_id}'
            from pg_class c where relnamespace = 'published'::regnamespace and relkind = 'r'
            """,
            (ACME,),
        ).fetchall()
    assert set(access.OPEN_TO_VENDORS) == OPEN
    for table, may_read, has_security, has_vendors in found:
        assert has_security == has_vendors, table
        assert may_read == (has_vendors or table in OPEN), table


def test_vendors_see_their_own_rows_only(nights):
    assert rows(ACME, "select sale from bi.fact_probe order by 1") == [(1,), (2,)], "not vendor 1 of another shop"
    assert rows(BOLT, "select sale from bi.fact_probe") == [(5,)]
    own = [("demo_shop", "1"), ("olist", "s1")]
    for table in ("fact_order_item", "dim_vendor"):
        query = f"select distinct marketplace, vendor_id from bi.{table} order by 1, 2"
        assert rows(ACME, query) == own
        assert rows(BOLT, query) == [("demo_outlet", "V1")]
        assert len(rows("bi_reader", query)) >= 3
    assert rows("bi_reader", "select count(*) from bi.fact_probe") == [(6,)]
    assert rows("scorer", "select count(*) from published.fact_probe") == [(6,)]
    assert rows("analyst", "select count(*) from bi.fact_probe") == [(6,)]


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) from bi.fact_probe",
        "select count(*) from bi.fact_probe a full join bi.fact_probe b using (vendor_id) where b.sale is not null",
        "select count(*) from (select distinct on (sale) * from bi.fact_probe order by sale) x",
        "with x as materialized (select * from bi.fact_probe) select count(*) from x",
        # Whoever evaluated these on another vendor's row would fail, and so tell that it is there, or what it says.
        "select count(*) from bi.fact_probe where 1 / (amount - 50) is not null",
        "select count(*) from bi.fact_probe join (values (50), (30)) v (x) on 1 / (amount - x) < 9 where x = 30",
        "select count(*) from bi.fact_probe where case when vendor_id = 'V1' then 1 / (sale - sale) else 1 end = 1",
        "select count(*) from bi.fact_probe where vendor_id in ('1', 's1') or vendor_id::date is null",
        "select count(*) from bi.fact_probe where (marketplace, sale) in (select marketplace, sale from bi.fact_probe)",
    ],
)
def test_no_join_function_or_operator_gets_past_row_level_security(nights, query):
    assert rows(ACME, query) == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from published.fact_probe",
        "select * from published.dim_vendor",
        "select * from core.fact_probe",
        "select * from predictions.churn_score",
        "select * from bi.churn_score",
        "select * from bi.fact_order",
        "select list_price_amount from bi.dim_product",
        "select * from ops.vendor_access",
        "select * from ops.run_ledger",
        "select query_to_xml('select * from published.fact_probe', true, true, '')",
        f"set role {BOLT}",
        "set role bi_reader",
        "set role publisher",
        "set session authorization bi_reader",
        "set row_security = off; select * from bi.fact_probe",
        "insert into bi.fact_probe values (9, 'demo_shop', '1', 1)",
        "update bi.fact_probe set amount = 0",
        "delete from bi.fact_probe",
        "truncate published.fact_probe",
        "create temporary table mine (id int)",
        "create table bi.mine (id int)",
        "create function public.leak(numeric) returns bool language sql as 'select true'",
        "create view public.mine as select 1",
        f"grant {VENDORS} to {BOLT}",
        "select * from dev_probe.mine",
    ],
)
def test_a_vendor_may_not(nights, statement):
    with connect(ACME) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(statement)


@pytest.mark.parametrize("role", ["bi_reader", "analyst"])
@pytest.mark.parametrize("table", ["published.fact_probe", "predictions.churn_score"])
def test_readers_get_at_the_tables_through_the_views_alone(nights, role, table):
    rows(role, f"select * from bi.{table.partition('.')[2]}")
    with connect(role) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(f"select * from {table}")


def test_statistics_and_the_groups_own_role_tell_a_vendor_nothing(nights):
    assert rows(ACME, "select * from pg_stats where tablename = 'fact_probe'") == []
    with connect(ACME) as conn:
        conn.execute(f"set role {VENDORS}")
        assert conn.execute("select * from bi.fact_probe").fetchall() == []


def test_vendors_read_the_calendar_and_the_names_of_products(nights):
    assert rows(ACME, "select count(*) > 0 from bi.dim_date") == [(True,)]
    assert rows(ACME, "select marketplace, product_name from bi.dim_product") == [("demo_shop", "Cup")]


def emporium(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_a_login_is_made_shown_and_taken_away_and_its_password_never_printed(nights):
    login = "cara_probe"
    code, printed = emporium("vendor", "add", login, "--marketplace", "olist", "--vendor", "s1")
    assert code == 0, printed
    password = secret(f"pg_{login}")
    assert f"pg_{login}" in printed
    assert password not in printed
    code, listed = emporium("vendor", "list")
    assert (code, password in listed) == (0, False)
    assert f"{login}" in listed
    assert password in emporium("dsn", "--role", login)[1]
    with connect(login, autocommit=True) as conn:
        assert conn.execute("select sale from bi.fact_probe").fetchall() == [(2,)]
        assert emporium("vendor", "remove", login)[0] == 0
        try:
            assert conn.execute("select sale from bi.fact_probe").fetchall() == []
        except psycopg.Error as error:
            assert "does not exist" in str(error) or "permission denied" in str(error)  # noqa: PT017
    assert login not in emporium("vendor", "list")[1]
    with pytest.raises(psycopg.OperationalError):
        connect(login)
    access.add_vendor(login, "olist", "s1")
    assert secret(f"pg_{login}") != password
    access.remove_vendor(login)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "new_probe", "--marketplace", "olist", "--vendor", "nobody"), "olist has no vendor nobody"),
        (("add", "new_probe", "--marketplace", "mars", "--vendor", "s1"), "no marketplace mars"),
        (("add", "Bad Name", "--marketplace", "olist", "--vendor", "s1"), "cannot be a login"),
        (("add", "pg_probe", "--marketplace", "olist", "--vendor", "s1"), "cannot be a login"),
        (("add", "bi_reader", "--marketplace", "olist", "--vendor", "s1"), "is no vendor's login"),
        (("add", VENDORS, "--marketplace", "olist", "--vendor", "s1"), "is no vendor's login"),
        (("remove", "publisher"), "no vendor's login publisher"),
    ],
)
def test_what_cannot_be_a_vendors_login_is_refused_in_a_sentence(nights, arguments, message):
    code, printed = emporium("vendor", *arguments)
    assert code == 1
    assert message in " ".join(printed.split())
    assert "Traceback" not in printed
