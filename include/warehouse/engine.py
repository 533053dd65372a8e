"""Connections to the warehouse, one role per kind of work."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import sqlalchemy as sa

from include.secrets import secret
from include.settings import settings

ROLES = ("loader", "transformer", "scorer", "publisher", "analyst", "bi_reader")
"""Least-privilege roles of the warehouse; see docs/decisions/0004-roles.md."""

OWNER = "emporium"
DATABASE = "emporium"


def owner_dsn() -> str:
    """libpq URL of the user that owns everything: ``EMPORIUM_DSN``, else the embedded Postgres's."""
    cfg = settings()
    if cfg.dsn:
        # libpq knows both spellings, SQLAlchemy one.
        return re.sub("^postgres://", "postgresql://", cfg.dsn)
    return f"postgresql://{OWNER}:{quote(secret('pg_owner'), safe='')}@127.0.0.1:{cfg.pg_port}/{DATABASE}"


def database_name(suffix: str | None = None) -> str:
    """The warehouse's database, or its neighbour: ``database_name('airflow') -> 'emporium_airflow'``."""
    base = urlsplit(owner_dsn()).path.lstrip("/") or DATABASE
    return f"{base}_{suffix}" if suffix else base


def dsn(role: str | None = None, *, database: str | None = None) -> str:
    """libpq URL for ``role`` (one of ``ROLES``, ``airflow``, ``mlflow``, ``shop_reader``), or the owner's.

    ``database`` is a suffix as in ``database_name``; the default is the warehouse itself.
    """
    parts = urlsplit(owner_dsn())
    netloc = parts.netloc
    if role is not None:
        host = netloc.rsplit("@", 1)[-1]
        netloc = f"{role}:{quote(secret(f'pg_{role}'), safe='')}@{host}"
    return urlunsplit((parts.scheme, netloc, "/" + database_name(database), parts.query, ""))


def connect(role: str | None = None, *, database: str | None = None, **kwargs) -> psycopg.Connection:
    """A psycopg connection as ``role``. Times are UTC; a client that dies takes its query with it."""
    conn = psycopg.connect(
        dsn(role, database=database),
        options="-c timezone=UTC -c client_connection_check_interval=1s",
        application_name=kwargs.pop("application_name", f"emporium-{role or 'owner'}"),
        **kwargs,
    )
    return conn


def engine(role: str | None = None, *, database: str | None = None) -> sa.Engine:
    """A SQLAlchemy engine (psycopg 3) as ``role``, for libraries that want one."""
    url = dsn(role, database=database).replace("postgresql://", "postgresql+psycopg://", 1)
    return sa.create_engine(url, connect_args={"options": "-c timezone=UTC"}, pool_pre_ping=True)
