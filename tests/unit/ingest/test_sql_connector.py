"""What the SQL connector refuses before it asks a database, and which days it lands together."""

from datetime import date, timedelta

import pytest
import yaml

from include.dates import cut
from include.ingest.connectors import SourceError
from include.ingest.connectors.sql import CHUNK_ROWS, Sql
from include.ingest.sources import Source

YAML = """
source: corner_shop
type: sql
marketplace: corner_shop
currency: EUR
connection: {dsn_secret: corner_shop, names: {prefix: oc_, vendors: "{prefix}vendor"}}
entities:
  orders:
    read: {table: "{prefix}order", changed: changed_at}
    key: [order_id]
    cursor: added_at
    columns: {order_id: {required: true}, added_at: {type: timestamptz}, changed_at: {type: timestamptz}}
  languages:
    read: {table: "{prefix}language", snapshot: true}
    key: [code]
    columns: {code: {required: true}}
"""

WRONG = "hunter2"


def source(text: str = YAML) -> Source:
    return Source.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dsn_secret: corner_shop,", "", "give `dsn_secret`, or `database` and `role`"),
        ("dsn_secret: corner_shop,", "dsn_secret: x, role: y,", "give `dsn_secret`, or `database` and `role`"),
        ("prefix: oc_", "prefix: oc; drop table", "names.prefix: 'oc; drop table' is not the name of a table"),
        ('"{prefix}vendor"', '"{prefiks}vendor"', "names.vendors: 'prefiks' is not among connection.names"),
        ('"{prefix}order"', '"{table}order"', "entities.orders.read: {table} is not among connection.names"),
        ("changed: changed_at", "changed: touched_at", "entities.orders.read.changed"),
        ("    cursor: added_at\n", "", "needs `cursor`, or `read.snapshot: true`"),
        (", snapshot: true", "", "entities.languages: type sql needs `cursor`, or `read.snapshot: true`"),
        ("changed: changed_at", "query: select 1", "one of `read.table` and `read.query`"),
        ("changed: changed_at", "chnged: changed_at", "entities.orders.read.chnged"),
    ],
)
def test_a_wrong_setting_is_named(old: str, new: str, said: str) -> None:
    assert old in YAML
    with pytest.raises(ValueError) as error:
        source(YAML.replace(old, new))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        (None, "set EMPORIUM_SECRET_CORNER_SHOP"),
        (f"shop.example:3306 {WRONG}", "is not a URL such as mysql+pymysql://"),
        (f"mysql+pymysql://reader:{WRONG}@x@127.0.0.1:1/shop", "has an @ too many"),
        (f"oracle://reader:{WRONG}@127.0.0.1:1/shop", "is for oracle; type sql reads MariaDB, MySQL and Postgres"),
        (f"mysql://reader:{WRONG}@127.0.0.1:1/shop", "The database of corner_shop does not answer"),
        (f"postgresql://reader:{WRONG}@127.0.0.1:1/shop", "The database of corner_shop does not answer"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_without_the_password(dsn, said, monkeypatch, tmp_path, caplog, capfd):
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    if dsn:
        monkeypatch.setenv("EMPORIUM_SECRET_CORNER_SHOP", dsn)
    with Sql(source()) as shop, pytest.raises(SourceError) as error:
        list(shop.read(date(2025, 1, 1), date(2025, 1, 1)))
    assert said in str(error.value)
    heard = f"{error.value!r} {error.value.__cause__} {caplog.text} {capfd.readouterr()}"
    assert WRONG not in heard
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_days_are_cut_where_the_rows_would_not_fit_and_a_day_never_is() -> None:
    first = date(2025, 1, 1)
    half, over = CHUNK_ROWS // 2, CHUNK_ROWS * 3
    counts = {first + timedelta(days=at): n for at, n in enumerate([half, half, 1, 0, over, 0, half, half])}
    found = [((begin - first).days, (end - first).days) for begin, end in cut(counts, CHUNK_ROWS)]
    assert found == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert list(cut({first: over}, CHUNK_ROWS)) == [(first, first)]
