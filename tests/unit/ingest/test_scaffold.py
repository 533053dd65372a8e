"""``source add``: what it writes can be checked, loaded and parsed; nothing is overwritten, no person slips in."""

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from expectations.check import judge
from include import dbt
from include.cli import app
from include.ingest.check import check
from include.ingest.infer import infer, snake
from include.ingest.scaffold import add, connection_of
from include.ingest.sources import load_source, parse_source
from include.settings import settings
from tests.unit.test_dbt_project import parse

ORDERS = (
    "OrderId,customer_email,First Name,order,Placed At,total,code,known_at,is_gift,updated_at,api token\n"
    "1001,ann@example.org,Ann,1,2031-08-02 10:00:00,12.50,007,x,true,2031-08-02 10:00:00,hush\n"
    "1002,bob@example.org,Bob,2,2031-08-02 11:00:00,3,008,,false,2031-08-02 11:00:00,hush\n"
)
ITEMS = "order_id,line,sku,qty\n1001,1,A,2\n1001,2,B,1\n1002,1,A,3000000000\n"
CUSTOMERS = "customer_id,name,city\n1,Ann,Ulm\n2,Bob,Ulm\n"
NOISE = "word,other\na,b\na,b\n"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A repository without sources, and a home with two days of files."""
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EMPORIUM_SECRET_PSEUDONYM_KEY", raising=False)
    settings.cache_clear()
    for day in ("2031-08-01", "2031-08-02"):
        folder = tmp_path / "home" / "exports" / day
        folder.mkdir(parents=True)
        files = {"orders": ORDERS, "order-items.1": ITEMS, "customers": CUSTOMERS, "noise": NOISE}
        for name, content in files.items():
            (folder / f"{name}.csv").write_text(content)
    yield tmp_path / "root"
    settings.cache_clear()


@pytest.fixture
def made(root):
    return add("corner", "files", {"folder": "exports/{day}"}, root=root, currency="CHF", time_zone="Europe/Zurich")


def described(root: Path) -> dict:
    return yaml.safe_load((root / "include/sources/corner.yaml").read_text())


def test_yaml_describes_what_is_there(root, made):
    found = described(root)
    assert (found["currency"], found["time_zone"]) == ("CHF", "Europe/Zurich")
    orders = found["entities"]["orders"]
    assert (orders["read"], orders["key"], orders["cursor"]) == ({"file": "orders"}, ["order_id"], "updated_at")
    assert orders["columns"] == {
        "order_id": {"from": "OrderId", "type": "integer", "required": True},
        "customer_email": {"pseudonym": "email"},
        # A word that SQL keeps for itself, and one that ingest does.
        "order_": {"from": "order", "type": "integer"},
        "placed_at": {"from": "Placed At", "type": "timestamptz"},
        "total": {"type": "numeric(18,4)"},
        "code": {},
        "known_at_": {"from": "known_at"},
        "is_gift": {"type": "boolean"},
        "updated_at": {"type": "timestamptz"},
    }
    items = found["entities"]["order_items"]
    assert (items["read"], items["key"]) == ({"file": "order-items"}, ["order_id", "line"])
    assert items["columns"]["qty"] == {"type": "bigint"}


def test_person_and_secret_are_left_out_and_the_yaml_says_why(root, made):
    text = (root / "include/sources/corner.yaml").read_text()
    assert "- First Name  # a person's: name it with `pseudonym:` if it is needed" in text
    assert "- api token  # a secret" in text
    assert described(root)["entities"]["customers"]["ignore"] == ["name"]
    assert not {"Ann", "hush", "ann@example.org"} & set(text.replace(",", " ").split())


def test_table_whose_rows_nothing_tells_apart_is_left_to_a_person(root, made):
    assert "noise" not in described(root)["entities"]
    assert made.todo == ["noise is left out, describe it by hand: no column of it tells its rows apart"]


def test_what_is_added_passes_the_check_as_it_is(root, made):
    report = check(parse_source(root / "include/sources/corner.yaml"), None, None, judge)
    assert report.all_problems == []
    assert {one.name: one.n_rows for one in report.entities} == {"orders": 2, "order_items": 3, "customers": 2}
    assert {line.state for one in report.entities for line in one.lines} == {"ok"}


def test_dbt_parses_the_staging_models(root, made, monkeypatch, tmp_path):
    for name, value in dbt.environment().items():
        monkeypatch.setenv(name, value)
    project = tmp_path / "project"
    # Without the other models: they parse or fail in a test of their own.
    shutil.copytree(dbt.PROJECT, project, ignore=shutil.ignore_patterns("target", "logs", "models", "tests"))
    shutil.copytree(root / "dbt_project" / "models", project / "models")
    monkeypatch.setattr("include.ingest.sources.FOLDER", root / "include" / "sources")
    load_source.cache_clear()
    manifest = parse(project, tmp_path / "target", dbt.variables())
    load_source.cache_clear()
    node = manifest["nodes"]["model.emporium.stg_corner__order_items"]
    assert node["depends_on"]["nodes"] == ["source.emporium.corner.order_items"]
    assert node["description"] == "Grain: order_id, line and business day on which the row became known."
    assert manifest["sources"]["source.emporium.corner.orders"]["schema"] == "raw_corner"


def test_staging_model_has_every_column_and_what_ingest_adds(root, made):
    text = (root / "dbt_project/models/staging/corner/stg_corner__order_items.sql").read_text()
    assert text == (
        "select\n    order_id,\n    line,\n    sku,\n    qty,\n    _deleted as is_deleted,\n    known_at,\n"
        '    partition_on as known_on\n    {{ evolved("corner", "order_items") }}\n'
        'from {{ source("corner", "order_items") }}\n'
    )


def test_nothing_is_overwritten(root, made):
    before = {path: path.read_text() for path in root.rglob("*") if path.is_file()}
    assert set(before) == set(made.paths)
    with pytest.raises(ValueError, match=r"corner.yaml is there already, and nothing is overwritten"):
        add("corner", "files", {"folder": "exports/{day}"}, root=root)
    (root / "include/sources/corner.yaml").unlink()
    with pytest.raises(ValueError, match="staging/corner is there already"):
        add("corner", "files", {"folder": "exports/{day}"}, root=root)
    assert not (root / "include/sources/corner.yaml").exists()


@pytest.mark.parametrize(
    ("name", "type", "connection", "entities", "said"),
    [
        ("Corner!", "files", {"folder": "exports/{day}"}, (), "not a name for a source"),
        ("corner", "fils", {}, (), "there is no connector 'fils'; types are:"),
        ("corner", "files", {}, (), "connection.folder: Field required"),
        ("corner", "files", {"folder": "nowhere/{day}"}, (), "has no file \\*.csv"),
        ("corner", "files", {"folder": "exports", "format": "jsonl"}, (), "another `format` or `day_format`"),
        ("corner", "files", {"folder": "exports/{day}"}, ("invoices",), "corner has no invoices; it has: customers"),
        ("corner", "rest", {"base_url": "http://127.0.0.1:9"}, (), "cannot list what there is: say it with --entity"),
        ("corner", "files", {"folder": "exports/{day}"}, ("noise",), "Nothing of corner could be described: noise"),
    ],
)
def test_mistake_is_one_sentence_and_writes_nothing(root, name, type, connection, entities, said):
    with pytest.raises(ValueError, match=said) as caught:
        add(name, type, connection, entities, root=root)
    assert len(str(caught.value).splitlines()) == 1
    assert not root.exists()


def test_entities_can_be_chosen_and_named(root):
    add("corner", "files", {"folder": "exports/{day}"}, ["buyers=customers", "orders"], root=root)
    entities = described(root)["entities"]
    assert {name: one["read"]["file"] for name, one in entities.items()} == {"buyers": "customers", "orders": "orders"}


def test_folder_of_each_day_need_not_be_spelled_out(root):
    add("corner", "files", {"folder": "exports"}, ["orders"], root=root)
    report = check(parse_source(root / "include/sources/corner.yaml"), None, None, judge)
    assert report.all_problems == []
    assert report.entities[0].n_rows == 2


def test_file_that_is_called_by_its_day_is_an_entity_of_the_sources_name(root, tmp_path):
    folder = tmp_path / "home" / "clicks"
    folder.mkdir()
    for day in ("2031-08-01", "2031-08-02"):
        (folder / f"{day}.jsonl").write_text('{"event_id": "a", "at": "2031-08-02T10:00:00Z"}\n')
        (folder / f"carts-{day}.jsonl").write_text('{"cart_id": 1}\n')
    add("corner", "files", {"folder": "clicks", "format": "jsonl"}, root=root)
    reads = {name: one["read"] for name, one in described(root)["entities"].items()}
    assert reads == {"corner": {"file": "{day}"}, "carts": {"file": "carts-{day}"}}
    assert check(parse_source(root / "include/sources/corner.yaml"), None, None, judge).all_problems == []


def test_stream_is_one_entity_of_events(root, tmp_path):
    folder = tmp_path / "home" / "clicks"
    folder.mkdir()
    (folder / "2031-08-02.jsonl").write_text('{"event_id": "a", "event_at": "2031-08-02T10:00:00Z"}\n')
    add("corner", "stream", {"folder": "clicks"}, root=root)
    found = described(root)["entities"]["events"]
    assert (found["key"], found["cursor"]) == (["event_id"], "event_at")
    assert check(parse_source(root / "include/sources/corner.yaml"), None, None, judge).all_problems == []


def test_settings_of_the_connection_are_read_as_yaml():
    found = connection_of(["page_size=10", "auth={type: bearer, secret: key}"], folder="exports", dsn_secret=None)
    assert found == {"folder": "exports", "page_size": 10, "auth": {"type": "bearer", "secret": "key"}}
    with pytest.raises(ValueError, match="write KEY=VALUE"):
        connection_of(["page_size"])


def test_command_says_what_is_wrong_without_a_traceback(root):
    done = CliRunner().invoke(app, ["source", "add", "corner", "--type", "fils"])
    assert done.exit_code == 1
    assert "there is no connector 'fils'" in done.output
    assert "Traceback" not in done.output


def test_command_lists_sources_and_types():
    done = CliRunner().invoke(app, ["source", "list"])
    assert done.exit_code == 0
    assert "demo_outlet" in done.output
    assert "types: dump, files, holidays, rates, rest, sql, stream, weather" in done.output


@pytest.mark.parametrize(
    ("values", "type"),
    [
        (["1", "-2"], "integer"),
        (["1", "3000000000"], "bigint"),
        (["007", "1"], "text"),
        (["1.5", "2"], "numeric(18,4)"),
        (["0.5", "-0.5"], "numeric(18,4)"),
        (["2031-01-01", None], "date"),
        (["2031-01-01", "2031-01-01 10:00"], "timestamptz"),
        (["true", "False"], "boolean"),
        (["0", "1"], "integer"),
        (["1", "x"], "text"),
        ([None, ""], "text"),
        (["9" * 400], "text"),
    ],
)
def test_type_is_the_narrowest_that_reads_all_values(values, type):
    (found,) = infer({"a": values})
    assert found.type == type
    assert found.is_nullable


def test_key_is_what_tells_rows_apart_and_is_named_like_one():
    def key(**columns) -> list[str]:
        return [one.name for one in infer(columns) if one.is_key]

    assert key(price=["1", "2"], order_id=["1", "2"]) == ["order_id"]
    assert key(order_id=["1", "1"], line=["1", "2"]) == ["order_id", "line"]
    assert key(order_id=["1", None], line=["1", "2"]) == []
    assert key(price=["1", "2"]) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("InvoiceNo", "invoice_no"),
        ("HTTPStatus", "http_status"),
        ("customer.email", "customer_email"),
        ("_id", "id"),
        ("2nd Line", "c_2nd_line"),
        ("Größe", "gr_e"),
        ("x" * 80, "x" * 50),
    ],
)
def test_names_of_columns(name, expected):
    assert snake(name) == expected
