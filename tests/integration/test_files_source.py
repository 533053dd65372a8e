"""Daily files from the folder to raw: poisoned rows, damaged files, and the same tables however a day is sent."""

import csv
import hashlib
import io
import random
from collections import Counter
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from expectations.raw import main as gate_main
from include.ingest import sources, tables
from include.ingest.__main__ import main as ingest_main
from include.ingest.types import PATTERNS, parse
from include.settings import settings
from include.warehouse.engine import connect

pytestmark = pytest.mark.integration

DAY = date(2032, 5, 1)
COLUMNS = ["order_id", "status", "quantity", "price", "ordered_at", "due_on", "updated_at"]
YAML = """
source: depot
type: files
marketplace: depot
currency: EUR
connection: {{folder: depot, manifest: {manifest}}}
entities:
  orders:
    key: [order_id]
    cursor: updated_at
    quarantine_threshold: {threshold}
    columns:
      order_id: {{required: true}}
      status: {{in: [created, shipped]}}
      quantity: {{type: integer, min: 1}}
      price: {{type: "numeric(18,4)"}}
      ordered_at: {{type: timestamptz}}
      due_on: {{type: date}}
      updated_at: {{type: timestamptz, required: true}}
"""


@pytest.fixture(scope="module")
def depot(warehouse, tmp_path_factory):
    """A home with the source ``depot`` alone; yields a function that writes its YAML."""
    folder = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_LAKE", str(tmp_path_factory.mktemp("files") / "lake"))
        patch.setattr(sources, "FOLDER", folder)
        settings.cache_clear()

        def write(threshold=0.5, manifest="null"):
            (folder / "depot.yaml").write_text(YAML.format(threshold=threshold, manifest=manifest))
            sources.load_source.cache_clear()

        write()
        tables.prepare()
        yield write
        with connect() as conn:
            conn.execute("drop schema raw_depot cascade")
            conn.execute("delete from quarantine.orders where source = 'depot'")
            for table in ("load_audit", "source_column"):
                conn.execute(f"delete from ops.{table} where source = 'depot'")
            conn.execute("delete from ops.quality_result where target like 'depot.%'")
    sources.load_source.cache_clear()
    settings.cache_clear()


def _folder(day=DAY):
    folder = settings().home / "depot" / str(day)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


def _put(rows, name="orders.csv", day=DAY, folder=None):
    path = (folder or _folder(day)) / name
    path.write_bytes(b"\n".join([",".join(COLUMNS).encode(), *rows]) + b"\n")
    return path


def _row(at, **change):
    row = {
        "order_id": f"o{at}",
        "status": "created",
        "quantity": "1",
        "price": "9.90",
        "ordered_at": "2032-05-01T10:00:00Z",
        "due_on": "2032-05-09",
        "updated_at": "2032-05-01T11:00:00Z",
        **change,
    }
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row[name] for name in COLUMNS)
    return text.getvalue().encode()


def _run(command, day=DAY):
    if command == "gate":
        return gate_main(["--source", "depot", "--as-of", str(day)])
    return ingest_main([command, "--source", "depot", "--as-of", str(day)])


def _query(text, *values):
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def _raw(day=DAY):
    names = ", ".join([*COLUMNS, "known_at", "_deleted"])
    return _query(f"select {names} from raw_depot.orders where partition_on = %s order by order_id", day)


def _counts(day=DAY):
    return _query(
        "select n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit where source = 'depot' "
        "and partition_on = %s",
        day,
    )[0]


POISON = {
    "line_parses": [
        b"o1,created,1,9.90,2032-05-01T10:00:00Z,2032-05-09,\xff2032-05-01T11:00:00Z",
        b"o2,creat\0ed,1,9.90,,,2032-05-01T11:00:00Z",
        b"o3,created,1,9.90,,,2032-05-01T11:00:00Z,one,too many",
        b"o4,created,1",
        b'o5,"created,1,9.90,,,2032-05-01T11:00:00Z',
        b'o6,cre"ated",1,9.90,,,2032-05-01T11:00:00Z,"',
    ],
    "quantity_is_integer": [_row(10, quantity="NaN"), _row(11, quantity="1" * 400), _row(12, quantity="2147483648")],
    "price_is_numeric": [
        _row(20, price="NaN"), _row(21, price="-Infinity"), _row(22, price="9" * 400), _row(23, price="1e999"),
        _row(24, price="99999999999999.99999"),
    ],
    "ordered_at_is_timestamptz": [
        _row(30, ordered_at="0000-00-00 00:00:00"), _row(31, ordered_at="9999-12-31T23:59:59Z"),
        _row(32, ordered_at="0001-01-01T00:00:00Z"),
    ],
    "due_on_is_date": [_row(40, due_on="0000-00-00"), _row(41, due_on="9999-12-31"), _row(42, due_on="2032-02-30")],
    "updated_at_is_timestamptz": [_row(50, updated_at="9999-12-31T23:59:59Z"), _row(51, updated_at="0000-01-01")],
    "updated_at_is_present": [_row(60, updated_at="")],
    "order_id_is_present": [_row(70, order_id="")],
    "status_is_known": [_row(80, status="lost"), _row(81, status="nan")],
    "quantity_is_in_range": [_row(90, quantity="0"), _row(91, quantity="-5")],
}  # fmt: skip


def test_every_poisoned_row_is_quarantined_by_its_rule_and_every_other_row_lands(depot):
    depot(threshold=0.9)
    poison = [(rule, row) for rule, rows in POISON.items() for row in rows]
    lines, expected = [], {}
    for at, (rule, row) in enumerate(poison):
        lines += [_row(f"good{at}"), row]
        expected[f"depot/{DAY}/orders.csv", len(lines) + 1] = rule
    _put([*lines, _row("last")])
    assert [_run(command) for command in ("land", "gate", "load")] == [0, 0, 0]
    found = _query("select file, line, rule, payload from quarantine.orders where source = 'depot'")
    assert {(file, line): rule for file, line, rule, _ in found} == expected
    assert all(payload for *_, payload in found)
    named = _query("select line, columns from quarantine.orders where source = 'depot' and line < 14 order by line")
    assert named == [(3, ["updated_at"]), (5, ["status"]), (7, []), (9, []), (11, []), (13, [])], "the first six lines"
    n_good, n_bad = len(poison) + 1, len(poison)
    assert [row[0] for row in _raw()] == sorted([*(f"ogood{at}" for at in range(n_bad)), "olast"])
    assert _counts() == (n_good + n_bad, n_good, 0, n_bad)
    # The known time of a row is never one of a poisoned clock.
    assert {row[-2].date() for row in _raw()} == {DAY}


@given(st.data(), st.sampled_from(["integer", "bigint", "numeric(18,4)", "timestamptz", "date", "boolean"]))
@hypothesis_settings(max_examples=25, deadline=None)
def test_what_the_gate_can_read_the_load_can_cast(warehouse, data, kind):
    """A value that the gate lets through and Postgres refuses would stop the load of everything."""
    texts = data.draw(st.lists(st.from_regex(PATTERNS[kind]), min_size=1, max_size=30))
    _, parses = parse(pa.array(texts, pa.string()), kind)
    good = [text for text, is_read in zip(texts, parses, strict=True) if is_read]
    assert _query(f"select count(one::{kind}) from unnest(%s::text[]) as one", good) == [(len(good),)]


def test_json_that_is_no_object_is_quarantined_with_its_line(depot):
    depot(threshold=0.9)
    yaml = sources.FOLDER / "depot.yaml"
    yaml.write_text(yaml.read_text().replace("{folder: depot,", "{folder: depot, format: jsonl,"))
    sources.load_source.cache_clear()
    good = '{"order_id": "%s", "price": 1.10, "updated_at": "2032-05-01T11:00:00Z"}'
    bad = ["[1]", '"x"', "null", '{"order_id": "a\\u0000b"}', '{"order_id": "\\ud800"}', "{", "[" * 50_000]
    number = '{"order_id": "n", "price": NaN, "quantity": %s, "updated_at": "2032-05-01T11:00:00Z"}' % ("9" * 5000)
    lines = [line for at, one in enumerate([*bad, number]) for line in (good % at, one)]
    (_folder() / "orders.jsonl").write_text("\n".join(lines) + "\n")
    assert [_run(command) for command in ("land", "gate", "load")] == [0, 0, 0]
    found = _query(
        "select line, rules from quarantine.orders where source = 'depot' and partition_on = %s order by line", DAY
    )
    assert found == [
        *((2 * at + 2, ["line_parses"]) for at in range(len(bad))),
        (2 * len(bad) + 2, ["quantity_is_integer", "price_is_numeric"]),
    ]
    assert [(row[0], str(row[3])) for row in _raw()] == [(str(at), "1.1000") for at in range(len(bad) + 1)]


def test_over_the_entitys_threshold_nothing_becomes_visible(depot, capsys):
    depot(threshold=0.2)
    _put([_row(at) for at in range(10)])
    assert [_run(command) for command in ("land", "gate", "load")] == [0, 0, 0]
    before = _raw()
    _put([*(_row(at) for at in range(20, 27)), *(_row(at, quantity="NaN") for at in range(27, 29))])
    assert _run("land") == 0
    assert _run("gate") == 1
    assert "2 of 9 rows (22.2%) break a rule, more than 20.0%: quantity_is_integer 2" in capsys.readouterr().err
    assert _run("load") == 1
    assert _raw() == before
    # The same share is fine for an entity that allows it.
    depot(threshold=0.25)
    assert [_run(command) for command in ("gate", "load")] == [0, 0]
    assert len(_raw()) == 7


def _spoil_manifest(folder):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  orders.csv\n{'0' * 64}  orders.1.csv\n")


def _spoil_cut_off(folder):
    path = folder / "orders.1.csv"
    path.write_bytes(path.read_bytes()[:-30])
    _list(folder)


def _spoil_missing(folder):
    (folder / "orders.1.csv").unlink()


def _spoil_unlisted(folder):
    (folder / "orders.2.csv").write_bytes((folder / "orders.1.csv").read_bytes())


def _list(folder):
    paths = sorted(folder.glob("*.csv"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_spoil_manifest, "checksum_matches"),
        (_spoil_cut_off, "file_is_complete"),
        (_spoil_missing, "listed_file_is_there"),
        (_spoil_unlisted, "file_is_listed"),
    ],
)
def test_nothing_of_a_day_with_a_damaged_file_is_loaded(depot, capsys, spoil, said):
    depot(manifest="SHA256SUMS")
    folder = _folder()
    _put([_row(1)], folder=folder)
    _put([_row(2)], "orders.1.csv", folder=folder)
    _list(folder)
    assert [_run(command) for command in ("land", "gate", "load")] == [0, 0, 0]
    before = _raw()
    assert [row[0] for row in before] == ["o1", "o2"]
    _put([_row(3)], folder=folder)
    _list(folder)
    spoil(folder)
    capsys.readouterr()
    assert _run("land") == 1
    error = capsys.readouterr().err
    assert said in error
    assert f"depot/{DAY}/" in error
    assert [_run(command) for command in ("gate", "load")] == [0, 0], "what was landed before is still whole"
    assert _raw() == before


# The same tables, however a day is sent

values = st.fixed_dictionaries(
    {
        "order_id": st.integers(1, 4).map(str),
        "status": st.sampled_from(["created", "shipped", "lost", ""]),
        "quantity": st.sampled_from(["1", "2", "NaN"]),
        "updated_at": st.sampled_from(
            [
                "2032-05-01T11:00:00Z",
                "2032-05-01 11:00:00",
                "2032-05-01T12:00:00Z",
                "2031-01-01T00:00:00Z",
                "2032-05-02",
            ]
        ),
    }
)


def _of_order_1(status, hour="11"):
    return {"order_id": "1", "status": status, "quantity": "1", "updated_at": f"2032-05-01T{hour}:00:00Z"}


@given(st.lists(values, min_size=1, max_size=8), st.integers(0, 2**32), st.integers(1, 3))
@example([_of_order_1("created"), _of_order_1("shipped"), _of_order_1("")], 1, 2)
@example([_of_order_1("shipped"), _of_order_1("created", "12")], 1, 2)
@hypothesis_settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_day_replayed_shuffled_split_or_sent_twice_gives_the_same_tables(depot, rows, seed, n_parts):
    depot(threshold=1)
    lines = [_row(**{"at": None, **row}) for row in rows]
    _put(lines)
    assert [_run(command) for command in ("land", "gate", "load")] == [0, 0, 0]
    tables_of_day, counts = _raw(), _counts()
    broken = _query("select payload, rules from quarantine.orders where source = 'depot' and partition_on = %s", DAY)

    shuffled = random.Random(seed).sample([*lines, *lines], 2 * len(lines))
    folder = _folder()
    for part, some in enumerate(np.array_split(np.array(shuffled, object), n_parts)):
        _put(list(some), f"orders.{part}.csv" if part else "orders.csv", folder=folder)
    assert [_run(command) for command in ("land", "gate", "load")] == [0, 0, 0]
    assert _raw() == tables_of_day
    again = _query("select payload, rules from quarantine.orders where source = 'depot' and partition_on = %s", DAY)
    assert Counter(map(str, again)) == Counter(map(str, [*broken, *broken]))
    n_in, n_loaded, n_duplicate, n_quarantined = _counts()
    assert (n_in, n_loaded, n_quarantined) == (2 * counts[0], counts[1], 2 * counts[3])
    assert n_in == n_loaded + n_duplicate + n_quarantined

    # And again with the next day's delivery: the same versions, known a day later.
    tomorrow = DAY + timedelta(days=1)
    _put(shuffled, day=tomorrow)
    assert [_run(command, tomorrow) for command in ("land", "gate", "load")] == [0, 0, 0]
    assert _raw() == tables_of_day
    n = len(COLUMNS)
    assert [row[:n] for row in _raw(tomorrow)] == [row[:n] for row in tables_of_day]
    assert {row[n].date() for row in _raw(tomorrow)} <= {tomorrow}
