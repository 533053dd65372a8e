"""Mended rows laid over bronze, without a database."""

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.ingest import bronze
from include.ingest.pseudonym import pseudonym
from include.ingest.quarantine import (
    ORIGINAL,
    Overlay,
    _value,
    broken_columns,
    commands,
    digest,
    payload_columns,
    payload_of,
    with_mended,
)
from include.ingest.sources import Entity, Source, load_source

DAY = date(2025, 3, 2)
NEXT = DAY + timedelta(days=1)
ENTITY = Entity.model_validate(
    {
        "key": ["id"],
        "cursor": "at",
        "deletes": {"by": "column", "column": "gone"},
        "columns": {"id": {"required": True}, "n": {"type": "integer"}, "at": {"type": "timestamptz"}, "gone": {}},
        "rules": [
            {
                "name": "n_fits_id",
                "expectation": "ExpectColumnPairValuesAToBeGreaterThanB",
                "arguments": {"column_A": "n", "column_B": "id"},
            }
        ],
    }
)


def row(line, day=DAY, error=None, **values):
    return dict.fromkeys(ENTITY.columns) | values | {
        "partition_on": day, "known_at": datetime(day.year, day.month, day.day, tzinfo=UTC), "_file": "f",
        "_line": line, "_error": error, "_deleted": False,
    }  # fmt: skip


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=bronze.schema(ENTITY))


def original(one):
    return payload_of({name: one[name] for name in payload_columns(one)})


def overlay(*mends, texts=None):
    """Mends as (row, its original payload or text, what stands in for it)."""
    return Overlay(
        {(one["partition_on"], "f", one["_line"]): (digest(text), payload) for one, text, payload in mends},
        texts or {},
        set(),
    )


def test_a_mended_row_stands_in_for_its_original_and_for_no_other():
    bad, same_line, good = row(2, id="1", n="x"), row(2, NEXT, id="2", n="x"), row(3, id="3", n="5")
    mends = overlay((bad, original(bad), {"id": "1", "n": "7", "at": None, "gone": None}))
    laid = mends.laid(ENTITY, table(bad, same_line, good))
    assert sorted(zip(laid["id"].to_pylist(), laid["n"].to_pylist(), strict=True)) == [
        ("1", "7"),
        ("2", "x"),
        ("3", "5"),
    ]
    assert [one[ORIGINAL] for one in laid.to_pylist() if one["id"] == "1"] == [original(bad)]
    assert laid[ORIGINAL].null_count == 2
    assert mends.check("s.e", DAY).is_passed
    assert mends.check("s.e", NEXT) is None


def test_a_row_of_another_content_is_not_the_row_that_was_mended():
    bad = row(2, id="1", n="x")
    mends = overlay((bad, original(bad), {"id": "1", "n": "7"}))
    laid = mends.laid(ENTITY, table(row(2, id="1", n="y")))
    assert laid["n"].to_pylist() == ["y"]
    check = mends.check("s.e", DAY)
    assert (check.severity, check.is_passed, check.n_failed, check.observed) == (
        "warning",
        False,
        1,
        {"first": ["f:2"]},
    )


def test_a_line_that_was_no_row_becomes_one_when_its_text_is_still_the_same():
    line, whole = row(2, error="not JSON"), {"id": "1", "n": "7", "at": None, "gone": None}
    place = (DAY, "f", 2)
    laid = overlay((line, "{{", whole), texts={place: "{{"}).laid(ENTITY, table(line))
    assert laid.select(["id", "n", "_error"]).to_pylist() == [{"id": "1", "n": "7", "_error": None}]
    laid = overlay((line, "{{", whole), texts={place: "{"}).laid(ENTITY, table(line))
    assert laid["_error"].to_pylist() == ["not JSON"]


@pytest.mark.parametrize(
    ("at", "known_at"),
    [
        ("2025-03-02T10:00:00Z", datetime(2025, 3, 2, 10, tzinfo=UTC)),
        ("2025-03-09T10:00:00Z", datetime(2025, 3, 2, tzinfo=UTC)),
        ("soon", datetime(2025, 3, 2, tzinfo=UTC)),
    ],
)
def test_a_mended_row_says_itself_when_it_became_known_within_its_day_and_whether_it_is_deleted(at, known_at):
    made = with_mended(ENTITY, table(row(2, id="1")), {(DAY, "f", 2): payload_of({"id": "1", "at": at, "gone": "yes"})})
    assert made.select(["known_at", "_deleted"]).to_pylist() == [{"known_at": known_at, "_deleted": True}]


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.none() | st.text(max_size=5), max_size=5), st.randoms())
@settings(deadline=None)
def test_the_digest_of_a_row_knows_neither_the_order_nor_columns_without_a_value(values, dice):
    pairs = [*values.items(), ("gained later", None)]
    dice.shuffle(pairs)
    assert digest(payload_of(dict(pairs))) == digest(payload_of(values))
    assert digest(payload_of({**values, "id": "1"})) != digest(payload_of({**values, "id": "2"}))


def test_rules_name_their_columns():
    rules = ["order_is_late_is_present", "n_is_in_range", "id_matches", "n_fits_id", "line_parses", "x_is_unknown"]
    assert broken_columns(ENTITY, rules) == ["order_is_late", "n", "id", "x"]


def test_days_are_judged_and_loaded_again_neighbours_together():
    outlet = load_source("demo_outlet")
    later = DAY + timedelta(days=7)
    assert [" ".join(line) for line in commands(outlet, [later, NEXT, DAY])] == [
        "expectations.raw --source demo_outlet --as-of 2025-03-03 --from 2025-03-02",
        "include.ingest load --source demo_outlet --as-of 2025-03-03 --from 2025-03-02",
        "expectations.raw --source demo_outlet --as-of 2025-03-09",
        "include.ingest load --source demo_outlet --as-of 2025-03-09",
    ]
    clicks = [line[0] for line in commands(load_source("demo_clicks"), [DAY])]
    assert clicks == ["expectations.raw", "spark_jobs.sessions"]


def test_a_mended_value_is_cleaned_as_extraction_does_and_one_left_alone_is_not(monkeypatch):
    monkeypatch.setenv("EMPORIUM_SECRET_PSEUDONYM_KEY", "a key for tests")
    shop = Source.model_validate(
        {
            "source": "shop", "type": "files", "marketplace": "shop", "currency": "EUR", "time_zone": "Europe/Berlin",
            "connection": {"folder": "shop"},
            "entities": {"orders": {"read": {"file": "orders"}, "key": ["id"], "columns": {
                "id": {"required": True, "upper": True}, "at": {"type": "timestamptz"},
                "name": {"unescape": "html"}, "person": {"pseudonym": "email"},
            }}},
        }
    )  # fmt: skip
    known = pseudonym("email", "ann@example.org")
    was = {"id": "a1", "at": "2025-07-01 10:00", "name": "a &amp; b", "person": known, "more": "x"}

    def value(name, mended):
        return _value(shop, shop.entities["orders"], name, mended, was)

    assert {name: value(name, held) for name, held in was.items()} == was
    assert value("id", "b2") == "B2"
    assert value("at", "2025-07-01 12:00") == "2025-07-01 10:00:00.000000Z"
    assert value("name", "c &amp; d@example.org") == "c & ***@***"
    assert value("person", "Ann@example.org ") == known
    assert value("person", " ") is None
    assert value("more", "d@example.org") == "***@***"
    with pytest.raises(ValueError, match="name holds a NUL"):
        _value(shop, shop.entities["orders"], "name", "a\0", {"name": "a\0"})
