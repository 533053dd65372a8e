"""The data dictionary against a migrated warehouse."""

import pytest

from include.dictionary import PAGE, describe, read_warehouse, render
from include.warehouse.engine import connect

pytestmark = pytest.mark.integration


def test_every_table_that_readers_meet_is_described(warehouse):
    tables = {f"{table.schema}.{table.name}": table for table in describe(read_warehouse(), {})}
    assert {"bi.churn_score", "bi.churn_score_latest", "predictions.churn_score", "ops.load_audit"} <= set(tables)
    assert tables["ops.load_audit"].description.startswith("Grain:")
    assert tables["bi.churn_score"].description.startswith("Grain:")
    bare = [
        f"{name}.{c.name}" for name, t in tables.items() if t.schema == "bi" for c in t.columns if not c.description
    ]
    assert bare == []
    assert [column.name for column in tables["ops.load_audit"].columns][:3] == ["run_id", "source", "entity"]


def test_partitions_and_the_planted_truth_stay_out(warehouse):
    with connect() as conn:
        conn.execute("create table predictions.churn_score_p20240101_t1 (like predictions.churn_score)")
        conn.execute("create schema if not exists planted_truth")
        conn.execute("create table planted_truth.hazard (x int)")
        conn.commit()
    try:
        names = {(table.schema, table.name) for table in read_warehouse()}
        assert ("predictions", "churn_score") in names
        assert ("predictions", "churn_score_p20240101_t1") not in names
        assert "planted_truth" not in {schema for schema, _ in names}
    finally:
        with connect() as conn:
            conn.execute("drop table predictions.churn_score_p20240101_t1")
            conn.execute("drop schema planted_truth cascade")


def test_a_comment_on_a_column_is_what_is_said_of_it(warehouse):
    with connect() as conn:
        conn.execute("comment on column ops.load_audit.n_in is 'As the owner says'")
    try:
        [audit] = [table for table in describe(read_warehouse(), {}) if table.name == "load_audit"]
        assert {c.name: c.description for c in audit.columns}["n_in"] == "As the owner says"
    finally:
        with connect() as conn:
            conn.execute("comment on column ops.load_audit.n_in is null")


def test_page_is_the_same_twice(warehouse):
    assert render(describe(read_warehouse(), {})) == render(describe(read_warehouse(), {}))


def test_committed_page_knows_every_table_and_column_of_the_migrations(warehouse):
    sections = {part.split("\n")[0]: part for part in PAGE.read_text().split("\n### ")[1:]}
    missing = []
    for table in read_warehouse():
        section = sections.get(f"{table.schema}.{table.name}", "")
        if "Columns as in [bi." in section:
            section = sections[f"bi.{table.name}"]
        missing += [f"{table.schema}.{table.name}.{c.name}" for c in table.columns if f"| `{c.name}` |" not in section]
    assert missing == [], "run `make docs`"
