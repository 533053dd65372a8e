"""What every connector keeps. Run by ``include.conformance.plugin``, once a harness."""

from __future__ import annotations

import logging
import random
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from include.conformance.harness import COLUMNS, DRIFT, ENTITY, SOURCE, Harness, Row
from include.dates import days
from include.ingest.connectors import Connector, SourceError, connector
from include.ingest.extract import Extract, extract
from include.ingest.sources import Source
from include.ingest.types import PATTERNS

FIRST, MIDDLE, LAST = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)
NOON = datetime(2024, 3, 2, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def _row(harness: Harness, number: int, **values: Any) -> dict[str, Any]:
    row = {
        "id": number,
        "label": f"thing {number}",
        "note": None if number % 3 else f"note {number}",
        "amount": Decimal(number) / 4,
        "is_paid": number % 2 == 0,
        "due_on": date(2024, 4, 1) + timedelta(days=number),
        "happened_at": datetime(2019, 12, 31, 23, tzinfo=UTC) + timedelta(hours=number),
        "updated_at": NOON,
        **values,
    }
    return {name: value for name, value in row.items() if name in harness.columns or name == DRIFT}


def _shop(harness: Harness) -> list[dict[str, Any]]:
    """Rows of five days, of which the suite reads the middle three; seven share a moment; stored in no order."""
    rows = []
    for number in range(1, 31):
        day = 1 + number % 5
        at = datetime(2024, 2, 28, 6, 30, tzinfo=UTC) + timedelta(days=day, minutes=number, microseconds=number)
        rows.append(_row(harness, number, updated_at=at))
    rows += [_row(harness, number, updated_at=NOON) for number in range(31, 38)]
    random.Random(7).shuffle(rows)  # noqa: S311
    return rows


def _of(rows: Sequence[Row], first: date, last: date) -> list[Row]:
    return [row for row in rows if first <= row["updated_at"].astimezone(UTC).date() <= last]


@contextmanager
def _served(harness: Harness, rows: Sequence[Row], page_size: int = 7) -> Iterator[Source]:
    with harness.serve(rows, page_size) as yaml:
        yield Source.model_validate(yaml)


def _read(source: Source, first: date = FIRST, last: date = LAST) -> Extract:
    (found,) = extract(source, first, last)
    assert not found.broken, f"lines are called broken that are none: {found.broken[:3]}"
    return found


def _value(kind: str, text: str | None, where: str) -> Any:
    """What bronze's string means, as load and the gate read it."""
    if text is None or kind == "text":
        return text
    assert re.fullmatch(PATTERNS[kind], text), f"{where} arrives as {text!r}, which ingest cannot read as {kind}"
    if kind == "bigint":
        return int(text)
    if kind == "boolean":
        return text.lower() in ("true", "t", "yes", "1")
    if kind == "date":
        return date.fromisoformat(text)
    if kind == "timestamptz":
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Decimal(text)


def _rows(found: pa.Table, names: Sequence[str]) -> list[tuple]:
    """Typed rows in the order of their ids."""
    rows = [
        tuple(_value(COLUMNS[name], row[name], f"{name} of the row {row['id']}") for name in names)
        for row in found.to_pylist()
    ]
    return sorted(rows, key=lambda row: row[names.index("id")])


def _expected(rows: Sequence[Row], names: Sequence[str]) -> list[tuple]:
    return sorted((tuple(row[name] for name in names) for row in rows), key=lambda row: row[names.index("id")])


def _assert_same(found: Extract, rows: Sequence[Row], harness: Harness) -> None:
    names = [name for name in COLUMNS if name in harness.columns]
    ids, wanted = found.rows["id"].to_pylist(), {str(row["id"]) for row in rows}
    assert wanted <= set(ids), f"rows are lost: {sorted(wanted - set(ids))}"
    assert set(ids) <= wanted, f"rows of other days: {sorted(set(ids) - wanted)}"
    assert len(ids) == len(wanted), f"rows come twice: {sorted({one for one in ids if ids.count(one) > 1})}"
    assert _rows(found.rows, names) == _expected(rows, names)


def _places(found: Extract) -> list[tuple]:
    names = ["partition_on", "_file", "_line", "id"]
    return sorted(tuple(row.values()) for row in found.rows.select(names).to_pylist())


# --- resumability ---------------------------------------------------------------------------------


class _Cut(Exception):
    pass


def test_read_that_was_cut_off_after_any_batch_is_read_again_whole(harness: Harness) -> None:
    rows = _shop(harness)
    with _served(harness, rows, 5) as source:
        for n_taken in range(1, 11):
            try:
                with connector(source) as reader:
                    for position, _ in enumerate(reader.read(FIRST, LAST), 1):
                        if position == n_taken:
                            raise _Cut
            except _Cut:
                pass
            else:
                break
            _assert_same(_read(source), _of(rows, FIRST, LAST), harness)


def test_range_is_the_union_of_its_days(harness: Harness) -> None:
    rows = _shop(harness)
    with _served(harness, rows) as source:
        whole = _read(source)
        each = [_read(source, day, day) for day in days(FIRST, LAST)]
    for day, one in zip(days(FIRST, LAST), each, strict=True):
        _assert_same(one, _of(rows, day, day), harness)
        assert set(one.rows["partition_on"].to_pylist()) == {day}
    # Quarantine names a row by its file and line: they must not depend on how many days were asked for.
    assert _places(whole) == sorted(place for one in each for place in _places(one))


# --- no loss, no duplicate ------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 2, 7, 10_000])
def test_no_row_is_lost_or_comes_twice_over_page_boundaries(harness: Harness, page_size: int) -> None:
    rows = _shop(harness)
    with _served(harness, rows, page_size) as source:
        _assert_same(_read(source), _of(rows, FIRST, LAST), harness)


@pytest.mark.parametrize("page_size", [1, 2, 3])
def test_rows_of_one_moment_survive_a_page_boundary(harness: Harness, page_size: int) -> None:
    rows = [_row(harness, number, updated_at=NOON) for number in (5, 1, 4, 2, 3, 6)]
    rows.append(_row(harness, 7, updated_at=NOON + TICK))
    with _served(harness, rows, page_size) as source:
        _assert_same(_read(source, MIDDLE, MIDDLE), rows, harness)


# --- ordering -------------------------------------------------------------------------------------


def test_second_read_gives_the_same_rows_in_the_same_places(harness: Harness) -> None:
    with _served(harness, _shop(harness)) as source:
        once, again = _read(source), _read(source)
    assert _places(once) == _places(again)
    assert once.rows.sort_by("id").equals(again.rows.sort_by("id"))


def test_no_two_rows_have_one_place(harness: Harness) -> None:
    with _served(harness, _shop(harness), 2) as source:
        places = [place[:3] for place in _places(_read(source))]
    twice = sorted({place for place in places if places.count(place) > 1})
    assert not twice, f"the quarantine could not tell these apart: {twice[:3]}"


def test_order_in_which_the_source_holds_rows_does_not_matter(harness: Harness) -> None:
    rows = _shop(harness)
    with _served(harness, rows) as source:
        as_they_are = _read(source).rows
    with _served(harness, rows[::-1]) as source:
        turned = _read(source).rows
    names = [name for name in as_they_are.column_names if name not in ("_file", "_line")]
    assert as_they_are.select(names).sort_by("id").equals(turned.select(names).sort_by("id"))


# --- type fidelity --------------------------------------------------------------------------------

VALUES: dict[str, tuple[str, list[Any]]] = {
    "unicode": ("label", ["Überraschung", "日本語", "🛒 cart", "e\u0301", "ﷺ", "\u200b|"]),
    "quotes": ("label", ['a "quoted" word', "it's", '"', "''", "\\", "\\n", "a\\\\b"]),
    "newlines": ("label", ["two\nlines", "two\r\nlines", "\ttab", "end\n"]),
    "separators": ("label", ["a,b;c|d", "a\tb", "{}", "[1, 2]", '{"a": 1}', "%s %d :x $1", "<a href='x'>&amp;</a>"]),
    "blanks": ("label", [" left", "right ", "  ", "\u00a0"]),
    "words that look like nothing": ("label", ["null", "NULL", "None", "nan", "NaN", "\\N", "NA", "-"]),
    "numbers that are text": ("label", ["007", "1e5", "0x10", "1.10", "12345678901234567890123", "true"]),
    "null": ("note", [None]),
    "big numbers": ("id", [2**53 + 1, 999_999_999_999_999_999, -(2**53) - 1, 0]),
    "decimals": (
        "amount",
        [Decimal(one) for one in ("0.1", "12345678901234.5678", "-0.0001", "0", "1.10", "99999999999999.9999")],
    ),
    "booleans": ("is_paid", [True, False, None]),
    "dates": ("due_on", [date(1970, 1, 1), date(2024, 2, 29), date(1899, 12, 31), date(2100, 12, 31), None]),
    "microseconds": (
        "happened_at",
        [
            datetime(2024, 3, 2, 1, 2, 3, micro, tzinfo=UTC)
            for micro in (0, 1, 10, 100_000, 123_456, 999_999)
        ],
    ),
    "offsets": (
        "happened_at",
        [
            datetime(2024, 3, 2, 0, 30, tzinfo=timezone(timedelta(hours=hours, minutes=minutes)))
            for hours, minutes in ((0, 0), (2, 0), (-5, 0), (5, 45), (14, 0))
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", VALUES)
def test_value_arrives_as_it_is(harness: Harness, what: str) -> None:
    column, values = VALUES[what]
    if column not in harness.columns:
        pytest.skip(f"the platform has no {column}")
    rows = [_row(harness, 1000 + at, **{column: value}) for at, value in enumerate(values)]
    with _served(harness, rows, 3) as source:
        found = {row["id"]: row[column] for row in _read(source, MIDDLE, MIDDLE).rows.to_pylist()}
    for row in rows:
        arrived = _value(COLUMNS[column], found.get(str(row["id"])), f"{column} {row[column]!r}")
        assert arrived == row[column], f"{row[column]!r} arrives as {arrived!r}"


def test_empty_text_is_empty_or_null_and_null_is_null(harness: Harness) -> None:
    if "note" not in harness.columns:
        pytest.skip("the platform has no note")
    with _served(harness, [_row(harness, 1, note=""), _row(harness, 2, note=None)]) as source:
        found = {row["id"]: row["note"] for row in _read(source, MIDDLE, MIDDLE).rows.to_pylist()}
    assert found["1"] in ("", None), f"an empty text arrives as {found['1']!r}"
    assert found["2"] is None, f"null arrives as {found['2']!r}"


# --- the days that were asked for -----------------------------------------------------------------


def test_days_begin_and_end_at_midnight_utc(harness: Harness) -> None:
    start = datetime(2024, 3, 2, tzinfo=UTC)
    rows = [
        _row(harness, 1, updated_at=start - TICK),
        _row(harness, 2, updated_at=start),
        _row(harness, 3, updated_at=start + timedelta(days=1) - TICK),
        _row(harness, 4, updated_at=start + timedelta(days=1)),
    ]
    with _served(harness, rows, 2) as source:
        for day in days(FIRST, LAST):
            _assert_same(_read(source, day, day), _of(rows, day, day), harness)


def test_late_row_comes_on_the_day_on_which_it_became_known(harness: Harness) -> None:
    late = {"happened_at": datetime(1999, 1, 1, tzinfo=UTC), "due_on": date(1999, 1, 1)}
    rows = [_row(harness, 1, updated_at=NOON, **late), _row(harness, 2, updated_at=NOON - timedelta(days=1))]
    with _served(harness, rows) as source:
        found = _read(source, MIDDLE, MIDDLE)
        _assert_same(found, rows[:1], harness)
    assert found.rows["known_at"].to_pylist() == [NOON]


# --- secrets and errors ---------------------------------------------------------------------------


@contextmanager
def _everything_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """All that is logged, at every level, and printed, also by libraries and processes below."""
    said: list[str] = []
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        yield said
    said += [caplog.text, *capfd.readouterr()]


def _assert_no_secret(harness: Harness, texts: Sequence[str]) -> None:
    for secret in harness.secrets:
        for text in texts:
            at = text.find(secret)
            assert at < 0, f"a secret is told: ...{text[max(at - 60, 0) : at]}***"


def test_secret_is_in_no_log_no_row_and_no_description(harness: Harness, caplog, capfd) -> None:
    if not harness.secrets:
        pytest.skip("the harness has no secrets")
    with _everything_said(caplog, capfd) as said, _served(harness, _shop(harness)) as source:
        found = _read(source)
        with connector(source) as reader:
            said += [repr(reader), str(reader), repr(source)]
        said.append(str(found.rows.to_pylist()))
    _assert_no_secret(harness, said)


def _error(yaml: Mapping[str, Any]) -> tuple[BaseException, str]:
    with pytest.raises(Exception) as caught:
        _read(Source.model_validate(yaml))
    return caught.value, "".join(traceback.format_exception(caught.value))


def test_refused_login_is_a_plain_error_without_the_secret(harness: Harness, caplog, capfd) -> None:
    if not harness.secrets:
        pytest.skip("the harness has no secrets")
    with _everything_said(caplog, capfd) as said, harness.refused() as yaml:
        error, told = _error(yaml)
        said.append(told)
    _assert_no_secret(harness, said)
    assert isinstance(error, SourceError), f"a refused login is {type(error).__name__}, not SourceError: {error}"
    assert SOURCE in str(error), f"the error does not name the source: {error}"


def test_source_that_is_gone_is_an_error_that_names_it(harness: Harness, caplog, capfd) -> None:
    with _everything_said(caplog, capfd) as said, harness.gone() as yaml:
        error, told = _error(yaml)
        said.append(told)
    _assert_no_secret(harness, said)
    assert isinstance(error, SourceError), f"it is {type(error).__name__}, not SourceError: {error}"
    assert SOURCE in str(error), f"the error does not name the source: {error}"


# --- what the source has --------------------------------------------------------------------------


def test_column_that_the_yaml_does_not_name_is_reported(harness: Harness) -> None:
    if not harness.can_drift:
        pytest.skip("the platform's columns never change")
    rows = _shop(harness)
    with _served(harness, rows) as source:
        assert _read(source).unnamed == ()
    with _served(harness, [{**row, DRIFT: f"new {row['id']}"} for row in rows]) as source:
        found = _read(source)
    assert DRIFT in found.unnamed, f"nothing says that the source has a column {DRIFT}"
    _assert_same(found, _of(rows, FIRST, LAST), harness)


def test_keys_are_those_of_all_rows(harness: Harness) -> None:
    rows = _shop(harness)
    with _served(harness, rows) as source, connector(source) as reader:
        if type(reader).keys is Connector.keys:
            pytest.skip("the connector does not compare keys")
        found = reader.keys(ENTITY)
    assert found.column_names == ["id"]
    assert sorted(map(int, found["id"].to_pylist())) == sorted(row["id"] for row in rows)


def test_discovery_finds_every_column(harness: Harness) -> None:
    with _served(harness, _shop(harness)) as source, connector(source) as reader:
        if type(reader).discover is Connector.discover:
            pytest.skip("the connector cannot say what the source has")
        found = reader.discover()
    wanted = set(source.entities[ENTITY].source_columns.values())
    tables = {name: {column.name for column in columns} for name, columns in found.items()}
    assert any(wanted <= columns for columns in tables.values()), f"no table has all of {sorted(wanted)}: {tables}"
