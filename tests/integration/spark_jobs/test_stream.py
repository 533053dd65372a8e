"""Lines of a stream as bronze rows: the verdicts of the pandas gate, whatever a line holds."""

import json
import random
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

pytestmark = pytest.mark.integration

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


def _nasty(seed: int, n: int) -> list[dict[str, str | None]]:
    """``n`` rows of strings, most of which some rule should catch, and some only just should not."""
    draw = random.Random(seed)
    one = draw.choice

    def number() -> str:
        some = ["".join(one("0123456789") for _ in range(draw.randint(0, 21))) for _ in range(2)]
        odd = ["NaN", "Infinity", "1e5", "9" * 400, "-2147483648", "2147483648", "9" * 14 + ".99999", "٣", " 1", "1\n"]
        return one(["", "-", "+"]) + one([some[0], ".".join(some), one("0123456789"), one(odd)])

    def on() -> str:
        year = one(["0000", "0001", "1677", "1678", "2024", "2025", "2262", "9999", "12025"])
        return f"{year}-{draw.randint(0, 13):02}-{draw.randint(0, 32):02}"

    def at() -> str:
        rest = one(["", ":00", ":59.5", ":60", ":01.123456", ":01.1234567"])
        zone = one(["", "Z", " Z", "z", "+02", "+0530", "-05:30", "+15:59", "+16:00", "-00:60", " UTC"])
        return f"{on()}{one('TT  x')}{one([0, 9, 23, 24]):02}:{one([0, 59, 60]):02}{rest}{zone}"

    def text() -> str:
        return one(
            [
                "view",
                "cart",
                "AB1",
                "AB1\n",
                "AB٣",
                "é" * 5000,
                "{}",
                "null",
                "\u2028",
                "ab",
                chr(draw.randrange(1, 0xD800)),
            ]
        )

    def flag() -> str:
        return one(["true", "F", "yeſ", "YES", "0", "2", "on", " t"])

    def mostly(own) -> str | None:
        return own() if draw.random() < 0.8 else one([number, on, at, text, flag, lambda: None])()

    own = {"id": text, "n": number, "big": number, "amount": number, "at": at, "day": on, "flag": flag}
    return [{name: mostly(own.get(name, text)) for name in COLUMNS} for _ in range(n)]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path))
    cfg.cache_clear()
    yield
    cfg.cache_clear()


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_spark_gives_the_verdict_of_the_gate_on_any_values(spark, seed):
    drawn = _nasty(seed, 400)
    table = pa.Table.from_pylist(drawn, schema=pa.schema([(name, pa.string()) for name in COLUMNS]))
    rules = gate_rules(ENTITY)
    frame = gate_typed(ENTITY, table, rules)
    verdicts = validate(frame, rules, gate="raw", target="t", as_of=DAY)
    wanted = {rule.name: set(verdict.rows.tolist()) for rule, verdict in zip(rules, verdicts, strict=True)}

    schema = "at_ int, " + ", ".join(f"`{name}` string" for name in COLUMNS)
    there = spark.createDataFrame([(at, *row.values()) for at, row in enumerate(drawn)], schema)
    severities = ("critical", "warning")
    judged = row_rules.with_typed(there, ENTITY)
    seconds_of = F.col(row_rules.TYPED.format("at")).cast("double")
    marked = judged.select(
        "at_", *(row_rules.broken(ENTITY, one).alias(one) for one in severities), seconds_of.alias("seconds")
    ).collect()
    found = {rule.name: set() for rule in rules}
    for row in marked:
        for severity in severities:
            for rule in filter(None, row[severity].split(",")):
                found[rule].add(row["at_"])
    assert {rule for rule, at in wanted.items() if at} >= {"n_is_integer", "at_is_timestamptz", "kind_is_known"}
    assert found == wanted

    seconds = [None if np.isnat(one) else one.astype("datetime64[us]").astype("int64") / 1e6 for one in
               frame["at"].dt.tz_localize(None).to_numpy()]  # fmt: skip
    assert [row["seconds"] for row in marked] == seconds


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


WHOLE_OR_NOT = [
    (b'{"id": "\xff"}', "not UTF-8 text"),
    (_json(id="a\0b"), "a NUL character, in the column id"),
    (_json(id="a\ud800b"), "half a character (a lone surrogate)"),
    (_json(id="a\udc00b"), "half a character (a lone surrogate)"),
    (_json(id="a\U0001f600b"), None),
    (b'{"id": "a\\\\ud800b"}', None),
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
    (b'{"id": "1", "x": 1, "x": 2}', None),
    (b'{"id": "1", "ann@example.org": 1, "bob@example.org": 2}', None),
]
"""A line, and what is wrong with it."""


def test_a_line_that_is_no_json_object_is_no_row_and_its_neighbours_are(spark):
    lines = [one for line, _ in WHOLE_OR_NOT for one in (line, _json())]
    found = _rows(spark, *lines)
    assert [row["_line"] for row in found] == list(range(1, len(lines) + 1))
    assert {row["_file"] for row in found} == {"clicks/a.jsonl"}
    assert [(line[:40], row["_error"]) for (line, _), row in zip(WHOLE_OR_NOT, found[::2], strict=True)] == [
        (line[:40], error) for line, error in WHOLE_OR_NOT
    ]
    for row in found[::2]:
        if row["_error"]:
            assert [row[name] for name in (*COLUMNS, "_rules", "_warned", "_extra")] == [None] * (len(COLUMNS) + 3)
    assert all(row["_error"] is None and row["_rules"] is None for row in found[1::2])


def test_values_are_text_as_sent_and_empty_ones_are_null(spark):
    names = ("id", "kind", "code", "flag", "big", "amount")
    first, second = _rows(
        spark,
        b'{"id": "a: 1.50, \\" 2e3", "kind": "", "code": null, "flag": true, "Big": 12, "amount": 12345678.50}',
        b'{"id": -1.5e-7, "kind": [1], "code": 0.1234567890123456789, "flag": {"a": 1}, "Big": 1.0 , "amount": 01.5}',
    )
    assert [first[name] for name in names] == ['a: 1.50, " 2e3', None, None, "true", "12", "12345678.50"]
    assert first["_rules"] == ["at_is_present"]
    assert second["_error"] == "not a JSON object"
    (third,) = _rows(
        spark, b'{"id": -1.5e-7, "kind": [1], "code": 0.1234567890123456789, "flag": {"a": 1}, "Big": 1.0 }'
    )
    assert [third[name] for name in names] == ["-1.5e-7", "[1]", "0.1234567890123456789", '{"a":1}', "1.0", None]


@pytest.mark.parametrize("number", ["12.50", "12345678.50", "-7.10", "1e5", "4.00"])
@pytest.mark.parametrize("space", ["", " "])
def test_a_number_beside_a_time_stays_as_it_was_sent(spark, number, space):
    at = "2025-03-02T10:00:12.500Z"
    (row,) = _rows(spark, f'{{"id":"a","at":"{at}","amount":{space}{number}}}'.encode())
    assert (row["at"], row["amount"]) == (at, number)


def test_what_a_day_brings_became_known_on_that_day(spark):
    said = ["2025-03-02T10:00:00Z", "2025-02-27T10:00:00Z", "2025-03-05T00:00:00Z", None]
    found = [row["known_at"].replace(tzinfo=UTC) for row in _rows(spark, *(_json(at=one) for one in said))]
    start = datetime(2025, 3, 2, tzinfo=UTC)
    assert found == [start.replace(hour=10), start, datetime(2025, 3, 2, 23, 59, 59, 999999, UTC), start]


def test_persons_are_pseudonyms_before_anything_is_written_and_the_key_is_in_no_plan(
    spark, tmp_path, monkeypatch, capsys
):
    # Workers know the home of the process that started the JVM, which is no longer this one's.
    monkeypatch.setitem(spark.sparkContext.environment, "EMPORIUM_HOME", str(tmp_path))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "pseudonym_key").write_text("a key")
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
    blank = {"color": "", "mood": None}
    assert _rows(spark, line, schema_policy="freeze", known=())[0]["_extra"] == blank
    evolving = [_rows(spark, line, schema_policy="evolve", known=one)[0]["_extra"] for one in (None, ("color",), ())]
    assert evolving == [blank, blank, {"color": "red ***@***", "mood": None}], "what was there first is a name only"
    assert _rows(spark, line, ignore=["color", "mood"])[0]["_extra"] is None
    (lone,) = _rows(spark, b'{"id": "a", "color": "red"}', ignore=["mood"])
    assert lone["_extra"] == {"color": ""}, "though it has fewer names than the YAML"
    assert _rows(spark, line, schema_policy="quarantine")[0]["_rules"] is None, "nothing was landed before"
    first, second = _rows(spark, line, _json(**{"Big Size": 1}), schema_policy="quarantine", known=("color",))
    assert (first["_rules"], second["_rules"]) == (None, ["big_size_is_unknown"])
