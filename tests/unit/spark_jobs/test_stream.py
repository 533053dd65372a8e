"""Lines of a stream as bronze rows: the verdicts of the pandas gate, whatever a line holds."""

import json
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from expectations._gx import validate
from expectations.raw import rules as gate_rules
from expectations.raw import typed as gate_typed
from include.ingest.pseudonym import pseudonym
from include.ingest.sources import Entity, Source
from include.settings import settings as cfg
from spark_jobs import row_rules
from spark_jobs.stream import rows

DAY = date(2025, 3, 2)
COLUMNS = {
    "id": {"required": True},
    "n": {"type": "integer", "min": 1, "max": 100},
    "big": {"type": "bigint", "from": "Big"},
    "amount": {"type": "numeric(18,4)", "required": True, "min": 0, "severity": "warning"},
    "at": {"type": "timestamptz", "required": True},
    "day": {"type": "date"},
    "flag": {"type": "boolean"},
    "kind": {"in": ["view", "cart"]},
    "code": {"pattern": "^[A-Z]{2}\\d$", "severity": "warning"},
}
ENTITY = Entity.model_validate({"key": ["id"], "cursor": "at", "columns": COLUMNS})


def _source(**entity) -> Source:
    made = {"key": ["id"], "cursor": "at", "columns": COLUMNS} | entity
    return Source.model_validate(
        {
            "source": "clicks", "type": "stream", "marketplace": "shop", "currency": "USD",
            "connection": {"folder": "clicks"}, "entities": {"events": made},
        }
    )  # fmt: skip


digits = st.text("0123456789", max_size=21)
numbers = st.one_of(
    st.builds(lambda sign, one, dot, two: sign + one + dot + two, st.sampled_from(["", "-", "+"]), digits,
              st.sampled_from(["", "."]), digits),
    st.sampled_from(["NaN", "Infinity", "1e5", "9" * 400, "-2147483648", "2147483648", "99999999999999.99999", "٣",
                     " 1", "1\n", "0x1"]),
)  # fmt: skip
dates = st.builds(
    lambda year, month, day: f"{year}-{month:02}-{day:02}",
    st.sampled_from(["0000", "0001", "1677", "1678", "2024", "2025", "2262", "9999", "12025"]),
    st.integers(0, 13), st.integers(0, 32),
)  # fmt: skip
times = st.builds(
    lambda day, gap, hour, minute, rest, zone: f"{day}{gap}{hour:02}:{minute:02}{rest}{zone}",
    dates, st.sampled_from("T x"), st.sampled_from([0, 9, 23, 24]), st.sampled_from([0, 59, 60]),
    st.sampled_from(["", ":00", ":59.5", ":60", ":01.123456", ":01.1234567"]),
    st.sampled_from(["", "Z", " Z", "z", "+02", "+0530", "-05:30", "+15:59", "+16:00", "-00:60", " UTC"]),
)  # fmt: skip
flags = st.sampled_from(["true", "F", "yeſ", "YES", "0", "2", "on", " t"])
texts = st.one_of(
    st.text(max_size=5), st.sampled_from(["view", "cart", "AB1", "AB1\n", "AB٣", "é" * 5000, "{}", "null"])
)
values = st.none() | st.one_of(texts, numbers, dates, times, flags)
strings = st.fixed_dictionaries(
    {
        "id": values, "n": st.one_of(numbers, values), "big": st.one_of(numbers, values),
        "amount": st.one_of(numbers, values), "at": st.one_of(times, values), "day": st.one_of(dates, values),
        "flag": st.one_of(flags, values), "kind": texts, "code": texts,
    }
)  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    monkeypatch.setenv("EMPORIUM_SECRET_PSEUDONYM_KEY", "a key")
    cfg.cache_clear()
    yield
    cfg.cache_clear()


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(strings, min_size=300, max_size=400))
def test_spark_gives_the_verdict_of_the_gate_on_any_values(spark, drawn):
    table = pa.Table.from_pylist(drawn, schema=pa.schema([(name, pa.string()) for name in COLUMNS]))
    frame, rules = gate_typed(ENTITY, table), gate_rules(ENTITY)
    verdicts = validate(frame, rules, gate="raw", target="t", as_of=DAY)
    wanted = {rule.name: set(verdict.rows.tolist()) for rule, verdict in zip(rules, verdicts, strict=True)}

    schema = "at_ int, " + ", ".join(f"`{name}` string" for name in COLUMNS)
    there = spark.createDataFrame([(at, *row.values()) for at, row in enumerate(drawn)], schema)
    severities = ("critical", "warning")
    marked = there.select("at_", *(row_rules.broken(ENTITY, one).alias(one) for one in severities)).collect()
    found = {rule.name: set() for rule in rules}
    for row in marked:
        for severity in severities:
            for rule in row[severity] or []:
                found[rule].add(row["at_"])
    assert {rule for rule, at in wanted.items() if at} >= {"n_is_integer", "at_is_timestamptz", "kind_is_known"}
    assert found == wanted

    times_there = there.select(row_rules.typed("timestamptz", F.col("at")).cast("double").alias("t")).collect()
    seconds = [None if np.isnat(one) else one.astype("datetime64[us]").astype("int64") / 1e6 for one in
               frame["at"].dt.tz_localize(None).to_numpy()]  # fmt: skip
    assert [row["t"] for row in times_there] == seconds


def _lines(spark, *lines: bytes, name=b"clicks/a.jsonl"):
    pieces = [(b"%b\t%b\t%d\t%b" % (str(DAY).encode(), name, at, line),) for at, line in enumerate(lines, 1)]
    as_bytes = spark.createDataFrame([(bytearray(one),) for (one,) in pieces], "value binary")
    # As Spark's text reader: bytes that nobody has looked at.
    return as_bytes.select(F.expr("cast(value as string)").alias("value"), F.lit("b1").alias("batch"))


def _rows(spark, *lines: bytes, known=None, **entity):
    source = _source(**entity)
    made = rows(_lines(spark, *lines), source, source.entities["events"], known)
    return made.orderBy("_line").collect()


GOOD = {"id": "1", "amount": "2", "at": "2025-03-02T10:00:00Z", "kind": "view", "code": "AB1"}


def _json(**values) -> bytes:
    return json.dumps(GOOD | values).encode()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"id": "\xff"}', "not UTF-8 text"),
        (_json(id="a\0b"), "a NUL character"),
        (b'{"id": "a\0b"}', "not a JSON object"),
        (b'{"id": NaN}', "not a JSON object"),
        (b'{"id": -Infinity}', "not a JSON object"),
        (b'["1"]', "not a JSON object"),
        (b'[{"id": "1"}]', "not a JSON object"),
        (b"5", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"id": "1"', "not a JSON object"),
        (b'{"id": "1"} {"id": "2"}', "not a JSON object"),
        (b'{"id": "1"}, {"id": "2"}', "not a JSON object"),
        (b'{"id": "1"}]', "not a JSON object"),
        (b'{"id": "1"}}', "not a JSON object"),
        (b"{'id': '1'}", "not a JSON object"),
        (b'{"id": 01}', "not a JSON object"),
        (b"[" * 3000, "not a JSON object"),
        (b'{"id": "1"}\r', None),
        (b' {"id": {"a": [1, {"b": null}]}} ', None),
        (b'{"id": "' + b"x" * 3_000_000 + b'"}', None),
        (b'{"id": "a\\\\u0000b"}', None),
        (b'{"id": ' + b"9" * 400 + b"}", None),
        (b"{}", None),
    ],
    ids=lambda value: value[:24].decode("utf-8", "replace") if isinstance(value, bytes) else "",
)
def test_a_line_that_is_no_json_object_is_no_row(spark, line, error):
    good, row, after = _rows(spark, _json(), line, _json())
    assert row["_error"] == error
    assert (row["_file"], row["_line"], row["_batch"]) == ("clicks/a.jsonl", 2, "b1")
    if error:
        assert [row[name] for name in (*COLUMNS, "_rules", "_warned", "_extra")] == [None] * (len(COLUMNS) + 3)
    assert [one["_rules"] for one in (good, after)] == [None, None], "its neighbours are untouched"


def test_values_are_text_as_sent_and_empty_ones_are_null(spark):
    (row,) = _rows(spark, b'{"id": 1.50, "kind": "", "code": null, "flag": true, "Big": 12, "amount": {"a": 1}}')
    assert [row[name] for name in ("id", "kind", "code", "flag", "big", "amount")] == [
        "1.50", None, None, "true", "12", '{"a":1}',
    ]  # fmt: skip
    assert row["_rules"] == ["at_is_present"] or row["_rules"] == ["at_is_present", "amount_is_numeric"][::-1]


def test_what_a_day_brings_became_known_on_that_day(spark):
    said = ["2025-03-02T10:00:00Z", "2025-02-27T10:00:00Z", "2025-03-05T00:00:00Z", None]
    found = [row["known_at"].replace(tzinfo=UTC) for row in _rows(spark, *(_json(at=one) for one in said))]
    start = datetime(2025, 3, 2, tzinfo=UTC)
    assert found == [start.replace(hour=10), start, datetime(2025, 3, 2, 23, 59, 59, 999999, UTC), start]


def test_persons_are_pseudonyms_before_anything_is_written_and_the_key_is_in_no_plan(spark, capsys):
    columns = COLUMNS | {"mail": {"pseudonym": "email"}}
    source = _source(columns=columns)
    lines = _lines(spark, _json(mail=" Ann@Example.org", kind="ask bob@example.org now", code="x" * 50_000))
    made = rows(lines, source, source.entities["events"])
    row = made.first()
    assert row["mail"] == pseudonym("email", "ann@example.org")
    assert row["kind"] == "ask ***@*** now"
    made.explain(True)
    assert "a key" not in capsys.readouterr().out


def test_other_names_are_kept_by_policy(spark):
    line = _json(color="red bob@example.org", mood=None)
    assert [_rows(spark, line, schema_policy=one)[0]["_extra"] for one in ("freeze", "evolve")] == [
        {"color": "", "mood": None},
        {"color": "red ***@***", "mood": None},
    ]
    assert _rows(spark, line, ignore=["color", "mood"])[0]["_extra"] is None
    assert _rows(spark, line, schema_policy="quarantine")[0]["_rules"] is None, "nothing was landed before"
    first, second = _rows(spark, line, _json(**{"Big Size": 1}), schema_policy="quarantine", known=("color",))
    assert (first["_rules"], second["_rules"]) == (None, ["big_size_is_unknown"])
