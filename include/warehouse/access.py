"""Who sees which rows of what BI reads, and the logins of vendors.

A view of ``bi`` runs with the rights of its reader (``security_invoker``), so grants and row-level security of the
table behind it hold. Nobody but the publisher has ``usage`` of ``published`` and ``predictions``: a reader gets at the
tables through the views alone. A vendor's login is a member of ``vendor_reader`` and sees the rows of its vendors, by
``ops.vendor_access``. See docs/bi.md and docs/decisions/0012-row-level-security.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.secrets import forget, secret
from include.warehouse.engine import connect
from include.warehouse.roles import VENDORS, mark

READERS = ("analyst", "bi_reader")
"""Roles that read every row of every view of ``bi``."""

SEE_ALL = (*READERS, "scorer")
"""Roles that see every row of a table with vendors; its owner, the publisher, does anyway."""

OPEN_TO_VENDORS: Mapping[str, Sequence[str]] = {
    "dim_date": (),
    "dim_geography": (),
    "dim_holiday": (),
    "dim_marketplace": (),
    "dim_product": ("marketplace", "product_id", "product_name", "category"),
}
"""What every vendor may read whole, because it tells nothing about another one: table -> columns, () for all.

Any other table is theirs only where it has the columns ``marketplace`` and ``vendor_id``, and then only their rows."""

LOGIN = re.compile(r"(?!pg_)[a-z][a-z0-9_]{2,50}")

# Two index conditions (constant arrays) that find the rows, then the exact pairs: a login of two shops must not see
# vendor 7 of the one because it is vendor 7 of the other.
OWN_ROWS = """
  marketplace = any (array(select a.marketplace from ops.vendor_access as a where a.role_name = current_user))
  and vendor_id = any (array(select a.vendor_id from ops.vendor_access as a where a.role_name = current_user))
  and (marketplace, vendor_id)
    in (select a.marketplace, a.vendor_id from ops.vendor_access as a where a.role_name = current_user)
"""


class AccessError(ValueError):
    """A login cannot be given or taken; the message says why and what to do."""


@dataclass(frozen=True)
class VendorLogin:
    """A login and one of the vendors whose rows it sees."""

    login: str
    marketplace: str
    vendor_id: str


def changes(conn: psycopg.Connection, schema: str, table: str, views: Sequence[str]) -> list[sql.Composed]:
    """The statements that bring grants and row-level security of a table and its views to what this module says.

    Nothing when they are: most take a lock that no reader gets past. Role: publisher.
    """
    relation = sql.Identifier(schema, table)
    columns, has_security, policies = _state(conn, schema, table)
    has_vendors = {"marketplace", "vendor_id"} <= columns
    found: list[sql.Composed] = []
    if has_vendors and not (has_security and policies == {"all_rows", "own_rows"}):
        readers = sql.SQL(", ").join(map(sql.Identifier, SEE_ALL))
        found += [
            sql.SQL("alter table {} enable row level security").format(relation),
            *(sql.SQL("drop policy {} on {}").format(sql.Identifier(name), relation) for name in sorted(policies)),
            sql.SQL("create policy all_rows on {} for select to {} using (true)").format(relation, readers),
            sql.SQL("create policy own_rows on {} for select to {} using (" + OWN_ROWS + ")").format(
                relation, sql.Identifier(VENDORS)
            ),
        ]
    for view in views:
        row = conn.execute(
            "select coalesce('security_invoker=true' = any (reloptions), false) from pg_class "
            "where oid = to_regclass(%s)",
            (f"bi.{view}",),
        ).fetchone()
        if row and not row[0]:
            found.append(sql.SQL("alter view {} set (security_invoker = true)").format(sql.Identifier("bi", view)))
    for name in [(schema, table), *(("bi", view) for view in views)]:
        for role in READERS:
            if not _may_read(conn, role, name):
                found.append(_grant(role, name))
        found += _of_vendors(conn, table, name, is_view=name[0] == "bi", has_vendors=has_vendors)
    return found


def locked(views: Sequence[str], statements: Sequence[sql.Composed]) -> list[sql.Composed]:
    """``statements`` after the lock that they need; none when there are none.

    In the order in which a reader locks, the view and then the table behind it, or the two would wait for each other
    and the reader might be the one that fails.
    """
    if not statements or not views:
        return list(statements)
    names = sql.SQL(", ").join(sql.Identifier("bi", view) for view in views)
    return [sql.SQL("lock table {} in access exclusive mode").format(names), *statements]


def _state(conn: psycopg.Connection, schema: str, table: str) -> tuple[set[str], bool, set[str]]:
    row = conn.execute(
        """
        select array(select attname::text from pg_attribute
                     where attrelid = c.oid and attnum > 0 and not attisdropped),
               relrowsecurity, array(select polname::text from pg_policy where polrelid = c.oid)
        from pg_class c where oid = to_regclass(%s)
        """,
        (f"{schema}.{table}",),
    ).fetchone()
    assert row is not None
    return set(row[0]), row[1], set(row[2])


def _may_read(conn: psycopg.Connection, role: str, name: tuple[str, str]) -> bool:
    # The regclass of what does not exist yet is null, and so is the answer.
    row = conn.execute("select has_table_privilege(%s, to_regclass(%s), 'select')", (role, ".".join(name))).fetchone()
    return bool(row and row[0])


def _grant(role: str, name: tuple[str, str], columns: Sequence[str] = ()) -> sql.Composed:
    only = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))) if columns else sql.SQL("")
    return sql.SQL("grant select{} on {} to {}").format(only, sql.Identifier(*name), sql.Identifier(role))


def _of_vendors(
    conn: psycopg.Connection, table: str, name: tuple[str, str], *, is_view: bool, has_vendors: bool
) -> list[sql.Composed]:
    may_read = _may_read(conn, VENDORS, name)
    columns = () if has_vendors else OPEN_TO_VENDORS.get(table)
    if columns and not is_view:
        # A view needs all that it shows; which of it a vendor gets is up to the grant on the view.
        columns = ()
    if columns is None:
        revoke = sql.SQL("revoke select on {} from {}").format(sql.Identifier(*name), sql.Identifier(VENDORS))
        return [revoke] if may_read else []
    if may_read:
        return []
    lacking = [
        column
        for column in columns
        if conn.execute(
            "select has_column_privilege(%s, to_regclass(%s), %s, 'select')", (VENDORS, ".".join(name), column)
        ).fetchone()
        != (True,)
    ]
    return [_grant(VENDORS, name, columns)] if lacking or not columns else []


def add_vendor(login: str, marketplace: str, vendor_id: str) -> str:
    """Make ``login`` see the rows of a vendor, and make the login where there is none; returns its secret's name.

    A login may be given several vendors. Role: owner. Raises ``AccessError`` for a vendor that is not published and
    for a name that is no vendor's login.
    """
    if not LOGIN.fullmatch(login):
        raise AccessError(
            f"{login!r} cannot be a login: 3 to 51 lower-case letters, digits or underscores, a letter first, not pg_."
        )
    with connect() as conn:
        _check_vendor(conn, marketplace, vendor_id)
        name = sql.Identifier(login)
        exists = conn.execute("select 1 from pg_roles where rolname = %s", (login,)).fetchone()
        if exists and login not in _logins(conn):
            raise AccessError(f"The server has a role {login} that is no vendor's login: take another name.")
        # Its password is that of the secret store, also when the store was emptied meanwhile.
        conn.execute(
            sql.SQL("{} role {} login password {}").format(
                sql.SQL("alter" if exists else "create"), name, sql.Literal(secret(f"pg_{login}"))
            )
        )
        conn.execute(sql.SQL("comment on role {} is {}").format(name, sql.Literal(mark())))
        conn.execute(sql.SQL("grant {} to {}").format(sql.Identifier(VENDORS), name))
        conn.execute(
            "insert into ops.vendor_access (role_name, marketplace, vendor_id) values (%s, %s, %s) "
            "on conflict do nothing",
            (login, marketplace, vendor_id),
        )
    return f"pg_{login}"


def _check_vendor(conn: psycopg.Connection, marketplace: str, vendor_id: str) -> None:
    if conn.execute("select to_regclass('published.dim_vendor')").fetchone() == (None,):
        raise AccessError("No vendor is published yet: run a night first (`make run`).")
    if conn.execute(
        "select 1 from published.dim_vendor where marketplace = %s and vendor_id = %s", (marketplace, vendor_id)
    ).fetchone():
        return
    known = [row[0] for row in conn.execute("select distinct marketplace from published.dim_vendor order by 1")]
    if marketplace not in known:
        raise AccessError(f"There is no marketplace {marketplace} with vendors: one of {', '.join(known)}.")
    raise AccessError(
        f"{marketplace} has no vendor {vendor_id}. The vendors there are: "
        f"select vendor_id, vendor_name from bi.dim_vendor where marketplace = '{marketplace}'"
    )


def _logins(conn: psycopg.Connection) -> set[str]:
    """Members of ``vendor_reader`` that this Emporium made."""
    rows = conn.execute(
        "select m.rolname from pg_auth_members a join pg_roles m on m.oid = a.member "
        "where a.roleid = (select oid from pg_roles where rolname = %s) "
        "and shobj_description(m.oid, 'pg_authid') = %s",
        (VENDORS, mark()),
    )
    return {row[0] for row in rows}


def vendor_logins() -> list[VendorLogin]:
    """Every login with every vendor that it sees. Role: owner."""
    with connect() as conn:
        rows = conn.execute("select role_name, marketplace, vendor_id from ops.vendor_access order by 1, 2, 3")
        return [VendorLogin(*row) for row in rows]


def remove_vendor(login: str) -> None:
    """Take a vendor's login away, with its password; a session of it that is open sees nothing any more.

    Role: owner. Raises ``AccessError`` when there is no such login.
    """
    with connect() as conn:
        if login not in _logins(conn):
            raise AccessError(f"There is no vendor's login {login}: see `./emporium vendor list`.")
        conn.execute("delete from ops.vendor_access where role_name = %s", (login,))
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))
    forget(f"pg_{login}")
