"""``./emporium source add`` and ``check`` as a person runs them, on a real database, in a copy of the repository."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from psycopg import sql

from include.settings import ROOT
from include.warehouse.engine import connect
from tests.integration.mariadb import ESCAPED, PASSWORD

pytestmark = pytest.mark.integration

SHOP = """
create table sale (
  sale_id int not null primary key, email varchar(96) not null, first_name varchar(32), total decimal(15,4) not null,
  weight double, `order` int, added datetime not null, date_modified datetime not null) engine=InnoDB;
create table sale_item (sale_id int not null, line int not null, sku varchar(64) not null, added datetime not null,
  primary key (sale_id, line)) engine=MyISAM;
create table setting (name varchar(64) not null primary key, api_token varchar(64), value text) engine=InnoDB;
create table log (message text) engine=InnoDB;
insert into sale values
  (1, 'ann@example.org', 'Ann', 12.5000, 1.5, 7, '2031-09-01 10:00:00', '2031-09-01 10:00:00'),
  (2, 'bob@example.org', 'Bob', 3.0000, null, 8, '2031-09-01 11:00:00', '2031-09-01 12:00:00');
insert into sale_item values (1, 1, 'A', '2031-09-01 10:00:00'), (1, 2, 'B', '2031-09-01 10:00:00');
insert into setting values ('currency', 'hush-hush', 'EUR');
"""


@pytest.fixture(scope="module")
def shop(mariadb):
    """A database with a shop that nobody has described; yields the URL of a role that may read it."""
    mariadb.run(None, "create database commands character set utf8mb4")
    mariadb.run("commands", SHOP)
    yield mariadb.dsn("commands")
    mariadb.run(None, "drop database commands")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The repository without what is not needed; it has the environment of this one."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("include", "expectations", "dbt_project"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    shutil.copy(ROOT / "emporium", folder)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def emporium(copy: Path, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run ./emporium of the copy."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(
        [copy / "emporium", "source", *arguments], cwd=cwd or copy, env=env, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def added(copy, shop, warehouse) -> subprocess.CompletedProcess:
    done = emporium(copy, "add", "web_shop", "--type", "sql", "--dsn-secret", "web_shop", EMPORIUM_SECRET_WEB_SHOP=shop)
    assert done.returncode == 0, done.stderr
    return done


def test_source_is_scaffolded_from_the_live_schema(copy, added):
    path = copy / "include" / "sources" / "web_shop.yaml"
    found = yaml.safe_load(path.read_text())
    assert found["connection"] == {"dsn_secret": "web_shop"}
    assert set(found["entities"]) == {"sale", "sale_item", "setting"}
    sale = found["entities"]["sale"]
    assert (sale["key"], sale["cursor"], sale["ignore"]) == (["sale_id"], "date_modified", ["first_name"])
    assert sale["columns"]["total"] == {"type": "numeric(18,4)", "required": True}
    assert sale["columns"]["email"] == {"pseudonym": "email", "required": True}
    assert found["entities"]["sale_item"]["key"] == ["sale_id", "line"]
    # It has no time of change, so it is read whole.
    assert found["entities"]["setting"]["read"] == {"table": "setting", "snapshot": True}
    assert found["entities"]["setting"]["ignore"] == ["api_token"]
    assert "to do: log is left out" in added.stdout
    staging = {one.name for one in (copy / "dbt_project/models/staging/web_shop").iterdir()}
    assert staging == {f"stg_web_shop__{name}.sql" for name in found["entities"]} | {"_web_shop.yml"}
    text = path.read_text() + added.stdout + added.stderr
    for secret in (PASSWORD, ESCAPED, "hush-hush", "ann@example.org", "Ann"):
        assert secret not in text


def test_added_source_passes_the_check_and_nothing_is_written(copy, added, shop, mariadb, warehouse, tmp_path):
    before, n_before = _state(warehouse), mariadb.query("commands", "select count(*) from sale")
    # By its path, from elsewhere.
    shutil.copy(copy / "include" / "sources" / "web_shop.yaml", tmp_path)
    done = emporium(
        copy, "check", "web_shop.yaml", "--as-of", "2031-09-01", cwd=tmp_path, EMPORIUM_SECRET_WEB_SHOP=shop
    )
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows: 2, of which 0 would be quarantined" in said
    assert "web_shop can be loaded." in said
    assert "sale_item: of engine MyISAM or Aria, which cannot show a table as it was at one moment." in said
    for secret in (PASSWORD, ESCAPED, "hush-hush", "ann@example.org"):
        assert secret not in done.stdout + done.stderr
    assert _state(warehouse) == before
    assert {one.name for one in tmp_path.iterdir()} == {"web_shop.yaml"}
    assert mariadb.query("commands", "select count(*) from sale") == n_before


def _state(home: Path) -> tuple:
    """How many rows every table of the warehouse has, and every file of the home outside of it."""
    with connect() as conn:
        tables = conn.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        rows = {
            table: conn.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(*table))).fetchone()
            for table in tables
        }
    return rows, {path for name in ("secrets", "lake", "streams") for path in (home / name).rglob("*")}


def test_secret_that_is_missing_is_named_and_where_to_put_it(copy, added):
    done = emporium(copy, "check", "web_shop", "--as-of", "2031-09-01")
    assert done.returncode == 1
    assert "The secret web_shop is not there: set EMPORIUM_SECRET_WEB_SHOP, or write it to" in done.stdout.replace(
        "\n", " "
    )
    assert "Traceback" not in done.stdout + done.stderr


def test_second_add_refuses(copy, added, shop):
    before = (copy / "include" / "sources" / "web_shop.yaml").read_text()
    done = emporium(copy, "add", "web_shop", "--type", "sql", "--dsn-secret", "web_shop", EMPORIUM_SECRET_WEB_SHOP=shop)
    assert done.returncode == 1
    assert "nothing is overwritten" in done.stderr
    assert (copy / "include" / "sources" / "web_shop.yaml").read_text() == before
