"""What an unnamed column does, without a database."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from include.ingest import bronze, drift
from include.ingest.drift import Drift, Seen, decide
from include.ingest.sources import Entity

DAY = date(2025, 3, 2)
BEFORE, AFTER = DAY - timedelta(days=1), DAY + timedelta(days=1)


def entity(policy, **more):
    columns = {"id": {"required": True}, "customer_name": {"from": "Name"}}
    return Entity.model_validate({"key": ["id"], "columns": columns, "schema_policy": policy, **more})


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("freeze", Drift(stops=("Gift Note",), is_news=True)),
        ("evolve", Drift(evolves=("Gift Note",), is_news=True)),
        ("quarantine", Drift(quarantines=("Gift Note",), is_news=True)),
    ],
)
def test_the_policy_decides_about_a_column_that_is_new(policy, expected):
    known = {"Gift Note": Seen(DAY, policy), "legacy": Seen(BEFORE, None)}
    seen = ["id", "Name", "legacy", "Gift Note"]
    assert decide(entity(policy), seen, known, DAY) == expected
    assert decide(entity(policy), seen, {"legacy": Seen(BEFORE, None)}, DAY) == expected, "not yet remembered"
    assert decide(entity(policy, ignore=["Gift Note"]), seen, known, DAY) == Drift()
    # Later days decide the same and are no news; a day before it was seen knows nothing of it.
    later = decide(entity(policy), seen, known, AFTER)
    assert (later.stops, later.evolves, later.quarantines) == (expected.stops, expected.evolves, expected.quarantines)
    assert not later.is_news
    assert decide(entity(policy), seen, known, BEFORE) == Drift()


@pytest.mark.parametrize("policy", ["evolve", "quarantine"])
def test_a_column_whose_name_is_taken_stops_the_batch_whatever_the_policy(policy):
    found = decide(entity(policy), ["Customer Name", "a b", "a-b", "known_at", "fine"], {}, DAY)
    assert found.stops == ("Customer Name", "a b", "a-b", "known_at")
    assert (*found.evolves, *found.quarantines) == ("fine",)


@pytest.mark.parametrize(
    ("column", "name"),
    [("Gift Note", "gift_note"), ("_x_", "x"), ("2nd", "column_2nd"), ("é", "column"), ("a" * 60, "a" * 50)],
)
def test_a_column_gets_a_name_that_postgres_and_delta_take(column, name):
    assert drift.raw_name(column) == name


def test_bronze_keeps_the_values_from_the_day_on_which_the_column_was_first_seen():
    shape = entity("evolve")
    rows = pa.Table.from_pylist(
        [{"id": str(n), "partition_on": day} for n, day in enumerate((BEFORE, DAY, AFTER))],
        schema=bronze.schema(shape),
    )
    extra = pa.table({"Gift Note": ["a", "b", "c"], "legacy": ["x", "x", "x"]})
    known = {"Gift Note": Seen(DAY, "evolve"), "legacy": Seen(BEFORE, None)}
    wide = drift.widened(shape, rows, extra, known, AFTER)
    assert wide["gift_note"].to_pylist() == [None, "b", "c"]
    assert "legacy" not in wide.column_names
    assert drift.widened(entity("freeze"), rows, extra, known, AFTER).column_names == rows.column_names


def test_of_a_column_that_is_set_aside_bronze_keeps_which_rows_had_a_value_and_no_value():
    shape = entity("quarantine")
    rows = pa.Table.from_pylist(
        [{"id": str(n), "partition_on": day} for n, day in enumerate((BEFORE, DAY, AFTER))],
        schema=bronze.schema(shape),
    )
    extra = pa.table({"Gift Note": ["for Ann", "for Bob", None]})
    wide = drift.widened(shape, rows, extra, {"Gift Note": Seen(DAY, "quarantine")}, AFTER)
    assert wide["has_gift_note"].to_pylist() == [None, "yes", None]
    assert "for " not in str(wide.to_pylist())
    assert drift.held(Drift(evolves=("A B",), quarantines=("Gift Note",))) == ["a_b", "has_gift_note"]


def test_only_rows_with_a_value_in_the_unknown_column_break_its_rule():
    rows = pa.table(
        {"partition_on": pa.array([BEFORE, DAY, DAY], pa.date32()), "has_gift_note": pa.array(["yes", None, "yes"])}
    )
    drifts = {DAY: Drift(quarantines=("Gift Note",))}
    assert {rule: at.tolist() for rule, at in drift.unknown_rows(rows, drifts).items()} == {"gift_note_is_unknown": [2]}


def test_the_verdict_names_the_column_and_what_to_do_and_warns_once():
    shape = entity("freeze")
    check = drift.check("shop.orders", DAY, Drift(stops=("Gift Note",), is_news=True), shape, 7)
    assert (check.severity, check.is_passed) == ("critical", False)
    said = drift.message(check)
    assert "shop.orders of 2025-03-02: the source has a column that the YAML does not know: Gift Note" in said
    assert (
        "in include/sources/shop.yaml name Gift Note under entities.orders.columns or list it under `ignore:`" in said
    )
    warned = [
        drift.check("shop.orders", DAY, Drift(evolves=("x",), is_news=news), entity("evolve"), 7).is_passed
        for news in (True, False)
    ]
    assert warned == [False, True]
    assert drift.check("shop.orders", DAY, Drift(), shape, 7) is None
