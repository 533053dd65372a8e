"""Bronze days: replaced as a whole, known by their content, whatever files hold them."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from include.ingest import bronze
from include.ingest.sources import Entity
from include.settings import settings

DAY = date(2025, 1, 30)
DAYS = [DAY + timedelta(days=n) for n in range(4)]
ENTITY = Entity.model_validate({"key": ["id"], "columns": {"id": {"required": True}, "email": {}}})
SHOP = ("shop", "orders", ENTITY)


@pytest.fixture(autouse=True)
def _lake(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPORIUM_LAKE", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


def _rows(days, n=2, email="a@b", entity=ENTITY, file="f"):
    made = [
        {
            "id": str(line), "email": email, "partition_on": day, "known_at": datetime(2025, 1, 1, tzinfo=UTC),
            "_file": file, "_line": line, "_deleted": False,
        }
        for day in days
        for line in range(1, n + 1)
    ]  # fmt: skip
    return pa.Table.from_pylist(made, schema=bronze.schema(entity))


def _table():
    return DeltaTable(bronze.uri("shop", "orders"))


def _batches():
    return bronze.batches("shop", "orders", DAYS[0], DAYS[-1])


def _read(first=DAYS[0], last=DAYS[-1]):
    return bronze.read(*SHOP, first, last)


def test_a_day_is_replaced_across_a_month_and_its_neighbours_stay():
    landed = bronze.replace(*SHOP, _rows(DAYS), DAYS[0], DAYS[-1])
    assert _batches() == landed
    changed = bronze.replace(*SHOP, _rows(DAYS[1:2], email="new"), DAYS[1], DAYS[1])
    assert _batches() == landed | changed
    assert changed[DAYS[1]] != landed[DAYS[1]]
    assert _read()["email"].to_pylist() == ["a@b"] * 2 + ["new"] * 2 + ["a@b"] * 4
    assert bronze.replace(*SHOP, _rows([]), DAYS[0], DAYS[2]) == {}
    assert set(_read()["partition_on"].to_pylist()) == {DAYS[3]}


def test_compacting_changes_no_batch_and_a_day_inside_a_large_file_can_still_be_replaced():
    for day in DAYS:
        bronze.replace(*SHOP, _rows([day]), day, day)
    before, rows = _batches(), _read()
    assert len(_table().file_uris()) == 4
    _table().optimize.compact()
    assert len(_table().file_uris()) == 2, "one a month"
    assert (_batches(), _read()) == (before, rows)
    changed = bronze.replace(*SHOP, _rows(DAYS[:1], n=3), DAYS[0], DAYS[0])
    assert _batches() == before | changed
    bronze.replace(*SHOP, _rows(DAYS[:1]), DAYS[0], DAYS[0])
    assert (_batches(), _read()) == (before, rows)


def test_a_fresh_day_is_appended_without_reading_anything():
    bronze.replace(*SHOP, _rows(DAYS[:1]), DAYS[0], DAYS[0])
    bronze.replace(*SHOP, _rows(DAYS[1:2]), DAYS[1], DAYS[1])
    assert _table().history(1)[0]["operationParameters"]["mode"] == "Append"
    version = _table().version()
    bronze.replace(*SHOP, _rows([]), DAYS[3], DAYS[3])
    assert _table().version() == version, "no rows before, none now: nothing to write"


def test_rows_of_another_day_are_refused():
    with pytest.raises(ValueError, match=r"2025-01-31 \.\. 2025-01-31 cannot replace partition_on 2025-01-30"):
        bronze.replace(*SHOP, _rows(DAYS[1:2]), DAYS[0], DAYS[0])


def test_the_log_knows_nothing_but_the_days_not_even_after_compacting():
    for day in DAYS:
        bronze.replace(*SHOP, _rows([day]), day, day)
    bronze.replace(*SHOP, _rows(DAYS[:1], email="new"), DAYS[0], DAYS[0])
    _table().optimize.compact()
    _table().create_checkpoint()
    found = set()
    for path in Path(bronze.uri("shop", "orders"), "_delta_log").glob("*.json"):
        for line in path.read_text().splitlines():
            stats = json.loads(json.loads(line).get("add", {}).get("stats") or "{}")
            found |= {*stats.get("minValues", {}), *stats.get("maxValues", {})}
    assert found == {"partition_on"}
    kept = pa.table(_table().get_add_actions(flatten=True)).column_names
    assert [one for one in kept if one.startswith(("min.", "max."))] == ["min.partition_on", "max.partition_on"]


def test_pieces_are_bounded_and_add_up(monkeypatch):
    monkeypatch.setattr("include.lake.BATCH_ROWS", 50)
    bronze.replace(*SHOP, _rows(DAYS, n=100), DAYS[0], DAYS[-1])
    pieces = list(bronze.pieces(*SHOP, DAYS[1], DAYS[2], n_rows=60))
    assert max(one.num_rows for one in pieces) <= 110
    assert sum(one.num_rows for one in pieces) == 200
    assert len(pieces) >= 2
    assert {day for one in pieces for day in one["partition_on"].to_pylist()} == set(DAYS[1:3])


def test_a_column_that_the_yaml_gained_is_null_in_older_days_and_changes_no_batch():
    before = bronze.replace(*SHOP, _rows(DAYS[:1]), DAYS[0], DAYS[0])
    wider = Entity.model_validate({"key": ["id"], "columns": {"id": {"required": True}, "email": {}, "note": {}}})
    rows = bronze.read("shop", "orders", wider, DAYS[0], DAYS[0])
    assert rows["note"].null_count == 2
    assert bronze.digest(bronze.identified(rows)) == before[DAYS[0]]
    bronze.replace("shop", "orders", wider, _rows(DAYS[1:2], entity=wider), DAYS[1], DAYS[1])
    assert _batches()[DAYS[0]] == before[DAYS[0]]


def test_a_stream_that_appends_to_a_day_has_another_batch_by_each_append():
    rows = bronze.identified(_rows(DAYS[:1]))
    bronze.ensure(*SHOP)
    seen = []
    for number in range(3):
        batch = pa.array([f"piece{number}"] * 2)
        write_deltalake(
            bronze.uri("shop", "orders"), rows.set_column(len(rows.column_names) - 1, "_batch", batch), mode="append"
        )
        seen.append(_batches()[DAYS[0]])
    assert len(set(seen)) == 3


def test_a_table_that_was_laid_out_by_day_is_one_sentence_that_says_what_to_do():
    write_deltalake(bronze.uri("shop", "orders"), _rows(DAYS[:1]), partition_by=["partition_on"])
    for attempt in (_batches, _read, lambda: bronze.replace(*SHOP, _rows(DAYS[:1]), DAYS[0], DAYS[0])):
        with pytest.raises(
            RuntimeError, match=r"earlier Emporium.*remove the folder .*bronze/shop.*include.ingest land"
        ):
            attempt()


VALUE = st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=4))


@given(st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=6), st.randoms(), st.data())
@examples(max_examples=60, deadline=None)
def test_a_batch_is_the_days_content_and_not_its_order(values, shuffler, data):
    made = [
        {
            "id": one,
            "email": other,
            "partition_on": DAY,
            "known_at": None,
            "_file": "f",
            "_line": line,
            "_deleted": False,
        }
        for line, (one, other) in enumerate(values)
    ]
    table = pa.Table.from_pylist(made, schema=bronze.schema(ENTITY))
    batch = bronze.identified(table)["_batch"][0]
    shuffled = list(range(len(made)))
    shuffler.shuffle(shuffled)
    assert bronze.identified(table.take(pa.array(shuffled)))["_batch"][0] == batch
    # The same rows out of pieces with offsets of their own, as they come back from a file.
    assert bronze.identified(pa.concat_tables([table.slice(0, 1), table.slice(1)]))["_batch"][0] == batch
    at = data.draw(st.integers(0, len(made) - 1))
    other = data.draw(VALUE.filter(lambda one: one != made[at]["email"]))
    made[at] = {**made[at], "email": other}
    assert bronze.identified(pa.Table.from_pylist(made, schema=bronze.schema(ENTITY)))["_batch"][0] != batch
