"""``source check`` finds what is wrong, says where and what to do, shows no person and no secret, writes nothing."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from expectations.check import main
from include.settings import settings

DAY = date(2031, 8, 2)
GOOD = """order_id,customer_email,ordered_at,status,Total,updated_at
o1,ann@example.org,2031-08-02 10:00:00,created,12.50,2031-08-02 10:00:00
o2,bob@example.org,2031-08-02 11:00:00,shipped,3.00,2031-08-02 12:00:00
"""
SOURCE = {
    "source": "corner",
    "type": "files",
    "marketplace": "corner",
    "currency": "EUR",
    "connection": {"folder": "corner/{day}"},
    "entities": {
        "orders": {
            "key": ["order_id"],
            "cursor": "updated_at",
            "columns": {
                "order_id": {"required": True},
                "customer_email": {"pseudonym": "email"},
                "ordered_at": {"type": "timestamptz", "required": True},
                "status": {"required": True, "in": ["created", "shipped"]},
                "total": {"from": "Total", "type": "numeric(18,4)", "min": 0},
                "updated_at": {"type": "timestamptz", "required": True},
            },
        }
    },
}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EMPORIUM_SECRET_PSEUDONYM_KEY", raising=False)
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


@pytest.fixture
def check(home, tmp_path, capsys):
    """Deliver a file, check the source, and return the exit code and all that was printed, without line breaks."""

    def run(content: str | None = GOOD, day: date | None = DAY, **changed) -> tuple[int, str]:
        if content is not None:
            file = home / "corner" / str(DAY) / "orders.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        path = tmp_path / "corner.yaml"
        path.write_text(yaml.safe_dump({**SOURCE, **changed}, sort_keys=False))
        code = main([str(path), *(["--as-of", str(day)] if day else [])])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return run


def columns(**changed) -> dict:
    """The entities of SOURCE with other columns; None takes one away."""
    orders = SOURCE["entities"]["orders"]
    merged = {**orders["columns"], **changed}
    return {"orders": {**orders, "columns": {name: of for name, of in merged.items() if of is not None}}}


def test_source_that_is_as_described_can_be_loaded(check):
    code, said = check()
    assert code == 0
    assert "rows: 2, of which 0 would be quarantined" in said
    assert "key (order_id) is unique" in said
    assert "corner can be loaded." in said
    assert "quarantines" not in said
    assert "warns of" not in said
    assert not {"doubt", "extra", "missing", "PROBLEM"} & set(said.split())


def test_nothing_is_written_anywhere(check, home, tmp_path):
    check()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    folders = {path for path in tmp_path.rglob("*") if path.is_dir()}
    # The second run writes the YAML anew, as the first did: that one is the test's own.
    check()
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    own = {tmp_path / "corner.yaml", home / "corner" / str(DAY) / "orders.csv"}
    assert set(before) == set(after) == own
    assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders
    assert not (home / "secrets").exists()


def test_missing_column_is_named_with_what_to_do(check):
    code, said = check(entities=columns(region={"from": "Region"}))
    assert code == 1
    assert "│ missing │ region │ Region │" in said
    assert "PROBLEM orders: the source lacks Region: correct `from`, remove the column, or say `optional: true`" in said
    # The rest was tried all the same.
    assert "rows: 2" in said


def test_optional_column_may_be_missing(check):
    code, said = check(entities=columns(region={"optional": True}))
    assert code == 0
    assert "not there, which `optional` allows" in said


def test_column_beyond_the_yaml_is_listed_unless_it_is_ignored(check):
    code, said = check(entities=columns(status=None))
    assert code == 0
    assert "│ extra │ │ status │ text │ name it, or list it under `ignore` │" in said
    assert "schema_policy says: freeze" in said
    ignored = columns(status=None)
    ignored["orders"]["ignore"] = ["status"]
    assert "extra" not in check(entities=ignored)[1]


def test_type_that_the_source_does_not_keep_is_a_doubt(check):
    _, said = check(entities=columns(total={"from": "Total", "type": "integer"}))
    assert "│ doubt │ total │ Total │ integer │ the source says numeric(18,4): 12.50, 3.00 │" in said


def test_key_that_repeats_and_required_columns_that_are_empty_are_counted(check):
    content = GOOD + "o2,,2031-08-02 11:00:00,,4,2031-08-02 13:00:00\n"
    _, said = check(content)
    assert "key (order_id) comes more than once for 1 of 2: the newest version of the day stays" in said
    assert "required and empty: status in 1" in said


def test_rows_that_would_be_quarantined_are_counted_by_rule_with_the_first(check):
    content = GOOD + "o3,,2031-08-02 11:00:00,lost,4,2031-08-02 13:00:00\no4,,x,created,-1,2031-08-02 13:00:00\n"
    code, said = check(content)
    assert code == 1
    assert "rows: 4, of which 2 would be quarantined" in said
    assert f"status_is_known quarantines 1, first corner/{DAY}/orders.csv:4: status = lost" in said
    assert f"ordered_at_is_timestamptz quarantines 1, first corner/{DAY}/orders.csv:5: ordered_at = x" in said
    assert f"total_is_in_range quarantines 1, first corner/{DAY}/orders.csv:5: total = -1" in said
    assert "PROBLEM corner.orders of 2031-08-02: 2 of 4 rows (50.0%) break a rule, more than 5.0%" in said


def test_entity_below_its_threshold_can_be_loaded(check):
    content = GOOD + "o3,,2031-08-02 11:00:00,lost,4,2031-08-02 13:00:00\n"
    entities = columns()
    entities["orders"]["quarantine_threshold"] = 0.5
    code, said = check(content, entities=entities)
    assert code == 0
    assert "1 would be quarantined" in said


def test_line_that_is_no_row_is_shown_with_what_is_wrong(check):
    code, said = check(GOOD + "o3,too,short\n")
    assert code == 1
    assert f"line_parses quarantines 1, first corner/{DAY}/orders.csv:4: 3 fields instead of 6" in said


def test_no_person_and_no_secret_is_shown(check):
    content = (
        "order_id,customer_email,note,first_name,api_token,updated_at\n"
        "o1,ann@example.org,write to carl@example.org,Dora,hush-1,2031-08-02 10:00:00\n"
        "o2,not an address,x,Emil,hush-2,2031-08-02 10:00:00\n"
    )
    entities = columns(
        ordered_at=None,
        status=None,
        total=None,
        customer_email={"pseudonym": "email", "pattern": "^never$"},
        note={"in": ["y"]},
        first_name={"in": ["y"]},
        api_token={"in": ["y"]},
    )
    code, said = check(content, entities=entities)
    assert code == 1
    assert "***@***" in said
    assert "first_name_is_known quarantines 2" in said
    for value in ("ann@example.org", "carl@example.org", "not an address", "Dora", "Emil", "hush-1", "hush-2"):
        assert value not in said


def test_without_a_day_the_sources_own_first_is_tried(check):
    assert f"as of {DAY}" in check(day=None)[1]


def test_day_that_was_not_delivered_is_a_plain_problem(check):
    code, said = check(day=date(2031, 8, 9))
    assert code == 1
    assert "PROBLEM The folder" in said
    assert "corner has not delivered 2031-08-09" in said
    assert "Traceback" not in said


def test_yaml_that_is_wrong_is_one_sentence(check, capsys):
    code, said = check(type="fils")
    assert code == 1
    assert said.startswith("corner.yaml: the file: there is no connector 'fils'; types are: ")
    assert main(["no_such_source"]) == 1
    assert "There is no source 'no_such_source'" in capsys.readouterr().err


def test_stream_is_tried_by_the_beginning_of_the_days_first_file(check, home):
    for name in ("a", "b"):
        file = home / "corner" / f"{DAY}-{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"order_id": "1", "updated_at": "2031-08-02T10:00:00Z", "new": 1}\n[1]\n')
    entities = columns(ordered_at=None, status=None, total=None, customer_email=None)
    entities["orders"]["quarantine_threshold"] = 0.5
    code, said = check(None, type="stream", connection={"folder": "corner"}, entities=entities)
    assert code == 0
    assert "rows: 2, of which 1 would be quarantined" in said
    assert f"line_parses quarantines 1, first corner/{DAY}-a.jsonl:2: not a JSON object" in said
    assert "│ extra │ │ new │ integer │" in said


def test_connector_that_lists_no_columns_is_compared_by_its_rows(check, monkeypatch):
    from include.ingest.connectors import Connector
    from include.ingest.connectors.files import Files

    monkeypatch.setattr(Files, "discover", Connector.discover)
    code, said = check(entities=columns(status=None, region={"from": "Region", "optional": True}))
    assert code == 0
    assert "Type files does not list columns" in said
    assert "│ extra │ │ status │" in said
    assert "│ ok │ order_id │" in said


def test_source_that_asks_a_warehouse_which_is_not_there_is_a_plain_problem_and_leaves_no_trace(
    home, capsys, monkeypatch, closed_port
):
    monkeypatch.setenv("EMPORIUM_PG_PORT", str(closed_port))
    settings.cache_clear()
    assert main(["holidays", "--as-of", "2031-12-25"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "PROBLEM the warehouse does not answer" in said
    assert "start it with ./emporium up" in said
    assert not home.exists()
