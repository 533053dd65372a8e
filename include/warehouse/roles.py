"""Roles and databases: what Alembic cannot do because it is per server, not per database."""

from __future__ import annotations

import hashlib

import psycopg
from psycopg import sql

from include.secrets import secret
from include.warehouse.engine import ROLES, connect, database_name

SERVICES = ("airflow", "mlflow")
"""Services with a database and a role of their own."""

VENDORS = "vendor_reader"
"""The group of vendors' logins (``include.warehouse.access``); nobody logs in as it."""


def ensure_roles_and_databases() -> None:
    """Create what is missing and set every password to the one in the secret store. Idempotent.

    Raises ``RuntimeError`` with what to grant when the owner may not create roles or databases.
    """
    with connect(autocommit=True) as conn:
        version = conn.info.server_version
        if version < 150000:
            raise RuntimeError(f"Postgres {version // 10000} is too old: EMPORIUM_DSN must name Postgres 15 or newer.")
        try:
            # Two starts at once take turns.
            conn.execute("select pg_advisory_lock(hashtext('emporium.roles'))")
            for role in (*ROLES, *SERVICES, "shop_reader"):
                _ensure_role(conn, role)
            _ensure_role(conn, VENDORS, is_login=False)
            for name in (*SERVICES, "shop"):
                _ensure_database(conn, name)
        except psycopg.errors.InsufficientPrivilege as error:
            raise RuntimeError(
                f"The user of EMPORIUM_DSN must be allowed to create roles and databases ({error}). "
                "Grant it CREATEROLE and CREATEDB."
            ) from error


def mark() -> str:
    """The comment on every role that this Emporium made.

    Roles are the server's, not the database's: setting the password of somebody else's would lock them out.
    """
    return f"emporium {hashlib.sha256(secret('pseudonym_key').encode()).hexdigest()[:12]}"


def _ensure_role(conn: psycopg.Connection, role: str, *, is_login: bool = True) -> None:
    exists = conn.execute(
        "select shobj_description(oid, 'pg_authid') from pg_roles where rolname = %s", (role,)
    ).fetchone()
    if exists and exists[0] != mark():
        raise RuntimeError(
            f"The server has a role {role} that is not this Emporium's: give this one a Postgres server of its own."
        )
    # A new role has no privilege of its own by default; only a superuser may name that attribute.
    verb = "alter" if exists else "create"
    may = sql.SQL("login password {}").format(sql.Literal(secret(f"pg_{role}"))) if is_login else sql.SQL("nologin")
    conn.execute(sql.SQL("{} role {} {}").format(sql.SQL(verb), sql.Identifier(role), may))
    conn.execute(sql.SQL("comment on role {} is {}").format(sql.Identifier(role), sql.Literal(mark())))


def _ensure_database(conn: psycopg.Connection, name: str) -> None:
    database = database_name(name)
    if not conn.execute("select 1 from pg_database where datname = %s", (database,)).fetchone():
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
    conn.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(database)))
    if name in SERVICES:
        conn.execute(sql.SQL("grant all on database {} to {}").format(sql.Identifier(database), sql.Identifier(name)))
        with connect(database=name, autocommit=True) as inside:
            inside.execute(sql.SQL("grant all on schema public to {}").format(sql.Identifier(name)))
    else:
        conn.execute(sql.SQL("grant connect on database {} to shop_reader").format(sql.Identifier(database)))
