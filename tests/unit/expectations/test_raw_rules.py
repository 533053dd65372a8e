"""The raw gate's verdicts on frames, without a database."""

from datetime import date, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest

from expectations._gx import Rule, gxe, message, validate
from expectations.raw import Tally, rules
from expectations.raw import message as why
from include.ingest import bronze
from include.ingest.load import VERDICT
from include.ingest.sources import Entity
from include.settings import settings

DAY = date(2025, 3, 2)
ENTITY = Entity.model_validate(
    {
        "key": ["id"],
        "columns": {
            "id": {"required": True},
            "n": {"type": "integer", "required": True, "min": 1},
            "at": {"type": "timestamptz"},
            "kind": {"in": ["a", "b"], "severity": "warning"},
        },
        "rules": [
            {
                "name": "id_is_short",
                "expectation": "ExpectColumnValueLengthsToBeBetween",
                "arguments": {"column": "id", "max_value": 5},
            }
        ],
        "min_rows": {"n": 2},
    }
)


@pytest.fixture(autouse=True)
def _settings(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


def _bronze(*rows, day=DAY):
    """Rows as (id, n, at, kind, error)."""
    names = ("id", "n", "at", "kind", "_error")
    found = [
        dict(zip(names, (*row, *[None] * (5 - len(row))), strict=True))
        | {"partition_on": day, "known_at": None, "_file": "things.csv", "_line": line}
        for line, row in enumerate(rows, 2)
    ]
    return pa.Table.from_pylist(found, schema=bronze.schema(ENTITY))


def _judge(*pieces, days=(DAY,), entity=ENTITY):
    tally = Tally("shop", "things", entity, list(days))
    asides = [tally.judge(rows) for rows in pieces]
    return SimpleNamespace(
        checks=tally.checks(dict.fromkeys(days, "a batch")),
        bad=pa.concat_tables(one.rows for one in asides),
        broken_rules=[broken for one in asides for broken in one.broken_rules],
    )


def _check(judged, rule, day=DAY):
    (found,) = [one for one in judged.checks if one.rule == rule and one.as_of == day]
    return found


def test_each_broken_rule_is_named_and_the_first_one_leads():
    judged = _judge(
        _bronze(
            ("1", "1"),
            (None, "1"),
            ("3", "x"),
            ("4", None),
            ("5", "0", "2025-02-30"),
            ("toolong", "1"),
            ("7", "1", None, "z"),
            (None, None, None, None, "not JSON"),
        )
    )
    assert dict(zip(judged.bad["_line"].to_pylist(), judged.broken_rules, strict=True)) == {
        3: ["id_is_present"],
        4: ["n_is_integer"],
        5: ["n_is_present"],
        6: ["n_is_in_range", "at_is_timestamptz"],
        7: ["id_is_short"],
        9: ["line_parses"],
    }
    assert _check(judged, "kind_is_known").n_failed == 1
    assert _check(judged, "kind_is_known").observed["on_break"] == "record"
    assert _check(judged, "n_is_integer").observed["first"] == ["things.csv:4"]


@pytest.mark.parametrize(("n_bad", "is_passed"), [(0, True), (5, True), (6, False)])
def test_the_batch_stops_above_the_threshold_not_at_it(n_bad, is_passed):
    judged = _judge(_bronze(*[(str(i), "0" if i < n_bad else "1") for i in range(100)]))
    verdict = _check(judged, VERDICT)
    assert (verdict.is_passed, verdict.n_failed, verdict.n_checked) == (is_passed, n_bad, 100)
    assert len(judged.bad) == n_bad
    if not is_passed:
        text = why(verdict)
        assert "shop.things of 2025-03-02: 6 of 100 rows (6.0%)" in text
        assert "n_is_in_range 6; first: things.csv:2, things.csv:3" in text


def test_the_share_is_per_day_and_an_empty_day_passes():
    other, empty = DAY + timedelta(days=1), DAY + timedelta(days=2)
    table = pa.concat_tables([_bronze(*[(str(i), "1") for i in range(99)]), _bronze(("x", "0"), day=other)])
    judged = _judge(table, days=(DAY, other, empty))
    assert [_check(judged, VERDICT, day).is_passed for day in (DAY, other, empty)] == [True, False, True]
    assert [_check(judged, "rows_are_enough", day).is_passed for day in (DAY, other, empty)] == [True, False, False]


def test_pieces_of_any_size_add_up_to_the_whole():
    rows = [(str(i) if i % 7 else None, "0" if i % 5 == 0 else "1", None, "z") for i in range(40)]
    other = DAY + timedelta(days=1)
    table = pa.concat_tables([_bronze(*rows), _bronze(*rows[:9], day=other)])
    whole = _judge(table, days=(DAY, other))
    parts = _judge(*(table.slice(start, 11) for start in range(0, table.num_rows, 11)), days=(DAY, other))
    assert parts.checks == whole.checks
    assert parts.bad == whole.bad
    assert parts.broken_rules == whole.broken_rules


def test_a_threshold_of_its_own_goes_before_the_setting():
    table = _bronze(*[(str(i), "0" if i < 6 else "1") for i in range(100)])
    for threshold, is_passed in ((0.06, True), (0.0, False)):
        judged = _judge(table, entity=ENTITY.model_copy(update={"quarantine_threshold": threshold}))
        assert (_check(judged, VERDICT).is_passed, _check(judged, VERDICT).observed["threshold"]) == (
            is_passed,
            threshold,
        )


def test_a_nul_in_a_text_sets_its_row_aside_in_a_column_that_evolved_too():
    rows = _bronze(("1", "1", None, "a\0"), ("2", "1", None, "a"), ("3\0", "1"), ("4", "1"))
    rows = rows.append_column("note", pa.array([None, None, None, "x\0"]))
    judged = _judge(rows)
    assert judged.bad["id"].to_pylist() == ["1", "3\0", "4"]
    assert [broken[0] for broken in judged.broken_rules] == ["kind_is_text", "id_is_text", "note_is_text"]
    assert not [one for one in _judge(_bronze(("1", "1"))).checks if one.rule.endswith("_is_text")]


def test_a_rule_with_a_condition_sees_every_column():
    rule = ENTITY.rules[0].model_copy(
        update={
            "arguments": {"column": "id", "max_value": 1, "row_condition": "at.notna()", "condition_parser": "pandas"}
        }
    )
    judged = _judge(_bronze(("11", "1"), ("22", "1", "2025-03-02")), entity=ENTITY.model_copy(update={"rules": [rule]}))
    assert judged.broken_rules == [["id_is_short"]]
    assert judged.bad["id"].to_pylist() == ["22"]


def test_a_day_without_any_row_is_judged():
    judged = _judge(_bronze())
    assert _check(judged, VERDICT).observed["batch"] == "a batch"
    assert [(one.rule, one.is_passed) for one in judged.checks] == [(VERDICT, True), ("rows_are_enough", False)]


def test_a_rule_that_cannot_be_evaluated_stops_the_batch():
    entity = ENTITY.model_copy(
        update={
            "rules": [
                ENTITY.rules[0].model_copy(update={"arguments": {"column": "idd", "max_value": 5}}),
            ]
        }
    )
    judged = _judge(_bronze(("1", "1")), entity=entity)
    (stop,) = [one for one in judged.checks if one.severity == "critical" and not one.is_passed]
    assert stop.rule == "id_is_short_can_be_judged"


def test_a_rule_with_wrong_arguments_says_so():
    wrong = ENTITY.rules[0].model_copy(update={"expectation": "ExpectNothing"})
    with pytest.raises(ValueError, match="Rule id_is_short: ExpectNothing"):
        rules(ENTITY.model_copy(update={"rules": [wrong]}))


def test_the_wrapper_reports_positions_whatever_the_index_and_the_first_keys():
    frame = _bronze(("1", "1"), ("2", None)).select(["id", "n"]).to_pandas().set_index("n", drop=False)
    suite = [
        Rule("n_is_present", "critical", gxe.ExpectColumnValuesToNotBeNull(column="n")),
        Rule("again", "warning", gxe.ExpectColumnValuesToNotBeNull(column="n")),
        Rule("rows", "critical", gxe.ExpectTableRowCountToBeBetween(min_value=5)),
        Rule("gone", "critical", gxe.ExpectColumnValuesToBeBetween(column="gone", min_value=5)),
    ]
    present, again, rows, gone = validate(frame, suite, gate="g", target="t", as_of=DAY, keys=["id"])
    assert present.rows.tolist() == again.rows.tolist() == [1]
    assert present.check.observed == {"first": [{"id": "2"}]}
    assert (rows.check.is_passed, rows.rows.tolist(), rows.check.observed) == (False, [], {"observed": 2})
    assert not gone.check.is_passed
    assert "gone" in gone.check.observed["error"]
    assert "t as of 2025-03-02: n_is_present is broken by 1 of 2 rows; first: id=2" in message(present.check)
    with pytest.raises(ValueError, match="share a name: again"):
        validate(frame, [suite[1], suite[1]], gate="g", target="t", as_of=DAY)
