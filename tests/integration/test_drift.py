"""Schema drift from the file to staging, by policy, in a real lake and Postgres."""

import os
from datetime import date

import pytest

from expectations.raw import main as gate_main
from include import dbt
from include.ingest.__main__ import main as ingest_main
from include.settings import settings
from include.warehouse.engine import connect
from tests import outlet
from tests.integration.yamls import own_yamls

pytestmark = pytest.mark.integration

FIRST, SECOND, THIRD = date(2032, 3, 1), date(2032, 3, 2), date(2032, 3, 3)
HEADER = outlet.HEADERS["orders"]


@pytest.fixture(scope="module")
def lake(warehouse, tmp_path_factory):
    os.environ["EMPORIUM_LAKE"] = str(tmp_path_factory.mktemp("drift") / "lake")
    settings.cache_clear()
    assert ingest_main(["prepare"]) == 0
    yield
    forget()
    del os.environ["EMPORIUM_LAKE"]
    settings.cache_clear()


@pytest.fixture
def edit(lake, tmp_path):
    """Nothing of the outlet is known; YAMLs that the test may edit."""
    forget()
    with own_yamls(tmp_path) as edit:
        yield edit


def forget():
    outlet.forget()
    with connect() as conn:
        for schema in ("raw_demo_outlet", "quarantine"):
            conn.execute(f"alter table {schema}.orders drop column if exists gift_note cascade")


def query(text, *values):
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def drop(day, *more, header=HEADER, n=20):
    """A day of orders; ``more`` are (column, value of the first order, value of the others)."""
    lines = []
    for at in range(n):
        row = f"D{at},person{at}@example.org,Ohio,{FIRST}T01:00:00Z,created,USD,{day}T09:00:00Z"
        cells = dict(zip(HEADER.split(","), row.split(","), strict=True))
        lines.append(",".join([*(cells[name] for name in header.split(",")), *(b if at else a for _, a, b in more)]))
    headers = outlet.HEADERS | {"orders": ",".join([header, *(name for name, _, _ in more)])}
    outlet.drop(day, headers, orders=lines)


def command(name, day, first=None):
    line = ["--source", "demo_outlet", "--as-of", str(day), *(["--from", str(first)] if first else [])]
    return gate_main(line) if name == "gate" else ingest_main([name, *line])


def night(day, first=None):
    for name in ("land", "gate", "load"):
        assert command(name, day, first) == 0


def checks():
    return query(
        "select as_of, severity, is_passed from ops.quality_result "
        "where rule = 'columns_are_known' and target = 'demo_outlet.orders' order by 1"
    )


def audit():
    return dict(query("select partition_on, checksum from ops.load_audit where entity = 'orders'"))


def test_a_new_column_evolves_down_to_staging_and_an_old_day_stays_as_it_was(edit):
    edit("demo_outlet.orders", {"schema_policy": "evolve"})
    drop(FIRST, ("legacy", "x", "x"))
    night(FIRST)
    before = audit()
    drop(SECOND, ("legacy", "x", "x"), ("Gift Note", "for bob@example.org", ""), ("status2", "", "raw"))
    night(SECOND)
    drop(THIRD, ("Gift Note", "again", ""))
    night(THIRD)
    assert query(
        "select partition_on, gift_note, count(*) from raw_demo_outlet.orders group by 1, 2 order by 1, 2"
    ) == [
        (FIRST, None, 20),
        (SECOND, "for ***@***", 1),
        (SECOND, None, 19),
        (THIRD, "again", 1),
        (THIRD, None, 19),
    ]
    assert query("select column_name, policy, first_seen_on from ops.source_column order by 1") == [
        ("Gift Note", "evolve", SECOND), ("legacy", None, FIRST), ("status2", "evolve", SECOND),
    ]  # fmt: skip
    assert checks() == [(SECOND, "warning", False), (THIRD, "warning", True)]

    assert dbt.run("run", ["--select", "stg_demo_outlet__orders"]) == 0
    staged = query("select gift_note from staging.stg_demo_outlet__orders where gift_note is not null order by 1")
    assert staged == [("again",), ("for ***@***",)]

    # The source now has the column for its first day too: that night did not know of it, so nothing changes.
    drop(FIRST, ("legacy", "x", "x"), ("Gift Note", "late", "late"))
    night(FIRST)
    assert audit()[FIRST] == before[FIRST]
    assert checks() == [(SECOND, "warning", False), (THIRD, "warning", True)]
    # Nor does a column that appears in an old day alone, as a database shows it that has the column by now.
    drop(FIRST, ("legacy", "x", "x"), ("Newer", "late", "late"))
    night(FIRST)
    assert audit()[FIRST] == before[FIRST]
    assert checks() == [(SECOND, "warning", False), (THIRD, "warning", True)]
    assert query("select first_seen_on from ops.source_column where column_name = 'Newer'") == [(date(2032, 3, 4),)]
    with connect() as conn:
        conn.execute("drop table staging.stg_demo_outlet__orders")


def test_a_frozen_entity_stops_before_anything_is_published_and_the_yaml_heals_it(edit, capsys):
    drop(FIRST, ("legacy", "x", "x"))
    night(FIRST)
    drop(SECOND, ("gift_note", "hello", ""))
    assert command("land", SECOND) == 0
    capsys.readouterr()
    assert command("gate", SECOND) == 1
    said = capsys.readouterr().err
    assert f"demo_outlet.orders of {SECOND}: the source has a column that the YAML does not know: gift_note" in said
    assert "name gift_note under entities.orders.columns or list it under `ignore:`" in said
    assert command("load", SECOND) == 1
    assert query("select count(*) from ops.load_audit where partition_on = %s", SECOND) == [(0,)]
    # A night that is simply run again stops again.
    assert command("land", SECOND) == 0
    assert command("gate", SECOND) == 1
    # `ignore` is a word to the gate alone; the rows are there.
    edit("demo_outlet.orders", {"ignore": ["gift_note"]})
    assert command("gate", SECOND) == 0
    assert command("load", SECOND) == 0
    # Naming it takes the night again.
    edit("demo_outlet.orders", {"ignore": [], "columns": {"gift_note": {}}})
    assert ingest_main(["prepare"]) == 0
    night(SECOND)
    assert query(
        "select gift_note from raw_demo_outlet.orders where order_id = 'D0' and partition_on = %s", SECOND
    ) == [("hello",)]


def test_rows_with_a_value_in_an_unknown_column_are_set_aside_and_over_the_threshold_the_batch_stops(edit):
    edit("demo_outlet.orders", {"schema_policy": "quarantine"})
    drop(FIRST)
    night(FIRST)
    drop(SECOND, ("gift_note", "hello", ""))
    night(SECOND)
    assert query("select line, rule, columns, payload::json ->> 'has_gift_note' from quarantine.orders") == [
        (2, "gift_note_is_unknown", ["gift_note"], "yes")
    ]
    assert query("select count(*) from quarantine.orders where payload ~ 'hello'") == [(0,)]
    assert query("select n_in, n_loaded, n_quarantined from ops.load_audit where partition_on = %s "
                 "and entity = 'orders'", SECOND) == [(20, 19, 1)]  # fmt: skip
    # To ignore it, the same bronze is judged anew; its values were never kept, so naming it takes the night again.
    edit("demo_outlet.orders", {"ignore": ["gift_note"]})
    assert command("gate", SECOND) == 0
    assert command("load", SECOND) == 0
    assert query("select count(*) from quarantine.orders") == [(0,)]
    edit("demo_outlet.orders", {"ignore": [], "columns": {"gift_note": {}}})
    assert ingest_main(["prepare"]) == 0
    night(SECOND)
    assert query("select gift_note from raw_demo_outlet.orders where gift_note is not null") == [("hello",)]

    edit("demo_outlet.orders", {"schema_policy": "quarantine"})
    drop(THIRD, ("gift_note", "", ""), ("other", "hello", "hello"))
    assert command("land", THIRD) == 0
    assert command("gate", THIRD) == 1


def test_a_column_that_vanished_is_named_with_its_file(edit, capsys):
    drop(FIRST, header=HEADER.replace("currency,", ""))
    assert command("land", FIRST) == 1
    said = capsys.readouterr().err
    assert "currency" in said
    assert "orders.csv" in said
