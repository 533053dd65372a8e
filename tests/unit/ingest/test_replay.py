# ruff: noqa: DTZ001 - times in a dump have no zone
"""Replay: on day D only what the shop knew on D is visible."""

from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from include.ingest import replay
from include.ingest.sources import load_source

FIRST = datetime(2018, 4, 1)
SPAN = (date(2018, 3, 1), date(2018, 6, 30))
STATUSES = ("delivered", "shipped", "canceled", "unavailable", "invoiced", "processing", "created", "approved")

moments = st.integers(0, 20 * 24 * 60).map(lambda minutes: FIRST + timedelta(minutes=minutes))
orders = st.lists(
    st.tuples(moments, st.none() | moments, st.none() | moments, st.none() | moments, st.sampled_from(STATUSES)),
    min_size=1,
    max_size=8,
)


def _table(rows):
    def text(at):
        return [None if row[at] is None else str(row[at]) for row in rows]

    n = len(rows)
    return pa.table(
        {
            "order_id": [f"o{i}" for i in range(n)],
            "customer_id": [f"c{i}" for i in range(n)],
            "order_status": [row[4] for row in rows],
            **{name: pa.array(text(at), pa.string()) for at, name in enumerate(replay.EVENTS)},
            "order_estimated_delivery_date": ["2018-12-01 00:00:00"] * n,
        }
    )


def _versions(rows, first=SPAN[0], last=SPAN[1]):
    table = _table(rows)
    purchased = replay.times(table.column(replay.PURCHASE).combine_chunks())
    taken, known_at, positions = replay.order_versions(table, purchased, first, last)
    return [
        (int(at), moment.astype("datetime64[D]").item(), moment.item(), row)
        for at, moment, row in zip(positions, known_at, taken.to_pylist(), strict=True)
    ]


def _status_by_hand(row, day):
    """The rule in words, one order at a time."""
    purchase, approved, *_, final = row
    known = [None if moment is None or max(moment, purchase).date() > day else moment for moment in row[:4]]
    if final in ("canceled", "unavailable") and (approved is None or known[1] is not None):
        return final
    for moment, status in ((known[3], "delivered"), (known[2], "shipped"), (known[1], "approved")):
        if moment is not None:
            return status
    return "created"


@given(orders)
@settings(max_examples=60, deadline=None)
def test_no_time_after_the_partitions_end_is_visible(rows):
    for at, day, known_at, version in _versions(rows):
        end = datetime.combine(day + timedelta(days=1), datetime.min.time())
        assert known_at < end
        for position, name in enumerate(replay.EVENTS):
            shown, real = version[name], rows[at][position]
            if shown is not None:
                # Dated before the purchase is known at the purchase, so the shown time is never after the day.
                assert datetime.fromisoformat(shown) < end
            elif real is not None:
                assert max(real, rows[at][0]) >= end


@given(orders)
@settings(max_examples=60, deadline=None)
def test_an_order_has_one_version_per_day_with_news_and_the_status_of_that_day(rows):
    found = {(at, day): version["order_status"] for at, day, _, version in _versions(rows)}
    expected = {}
    for at, row in enumerate(rows):
        for moment in row[:4]:
            if moment is not None:
                day = max(moment, row[0]).date()
                expected[at, day] = _status_by_hand(row, day)
    assert found == expected


@given(orders, st.integers(0, 25))
@settings(max_examples=40, deadline=None)
def test_day_by_day_and_all_at_once_are_the_same(rows, offset):
    cut = FIRST.date() + timedelta(days=offset)
    split = _versions(rows, SPAN[0], cut) + _versions(rows, cut + timedelta(days=1), SPAN[1])
    key = lambda version: version[:2]
    assert sorted(split, key=key) == sorted(_versions(rows), key=key)


def test_canceled_shows_from_the_approval_day_on():
    purchase, approval = datetime(2018, 4, 1, 10), datetime(2018, 4, 3, 10)

    def seen(*row):
        return [(day, version["order_status"]) for _, day, _, version in _versions([row])]

    assert seen(purchase, approval, None, None, "canceled") == [
        (date(2018, 4, 1), "created"),
        (date(2018, 4, 3), "canceled"),
    ]
    assert seen(purchase, None, None, None, "unavailable") == [(date(2018, 4, 1), "unavailable")]


def test_rows_become_known_with_their_order_and_unknown_ones_with_their_neighbour():
    source = load_source("olist")
    tables = {
        name: pa.table({column: pa.array([], pa.string()) for column in entity.source_columns})
        for name, entity in source.entities.items()
    }
    tables["orders"] = pa.table(
        {
            **{name: [None, None, None] for name in source.entities["orders"].source_columns},
            "order_id": ["a", "b", "c"],
            "customer_id": ["x", "y", "z"],
            replay.PURCHASE: ["2018-04-01 10:00:00", "soon", "2018-04-05 10:00:00"],
        }
    )
    tables["order_items"] = pa.table({"order_id": ["c", "nobody's", "a", None]})
    tables["products"] = pa.table({"product_id": ["p"]})
    known = replay.known_times(
        {name: replay.Known(**one.read["known"]) for name, one in source.entities.items()}, tables
    )
    a, c = np.datetime64("2018-04-01T10:00:00", "us"), np.datetime64("2018-04-05T10:00:00", "us")
    assert known["orders"].tolist() == [a.item(), a.item(), c.item()]
    assert known["order_items"].tolist() == [c.item(), c.item(), a.item(), a.item()]
    assert known["products"].tolist() == [datetime(2018, 4, 1)]


def test_duplicates_get_the_number_of_the_line_that_they_repeat():
    table = pa.table({"invoice": ["1", "1", "1", "2", "1", None], "code": ["a", "b", "a", "a", "c", None]})
    assert replay.numbered(table, ["invoice", "code"], "invoice") == ["1", "2", "1", "1", "3", None]


lines = st.lists(
    st.tuples(st.sampled_from(["1", "2"]) | st.none(), st.sampled_from("abc") | st.none(), st.sampled_from("xy")),
    min_size=1,
    max_size=10,
)


@given(lines, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_line_has_the_same_number_wherever_it_stands(rows, random):
    def numbers(of):
        table = pa.table({name: [row[at] for row in of] for at, name in enumerate(("invoice", "code", "note"))})
        return dict(zip(of, replay.numbered(table, ["invoice", "code", "note"], "invoice"), strict=True))

    shuffled = random.sample([*rows, *rows], 2 * len(rows))
    assert numbers(shuffled) == numbers(rows)
    found = numbers(rows)
    for invoice in {row[0] for row in rows} - {None}:
        own = [int(found[row]) for row in set(rows) if row[0] == invoice]
        assert sorted(own) == list(range(1, len(own) + 1))
