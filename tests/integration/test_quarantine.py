"""Rows set aside, mended by hand and put back: nothing lost, nothing twice, nobody's address."""

import json
import os
from datetime import date

import pytest
from typer.testing import CliRunner

from expectations.raw import main as gate_main
from include.cli import app
from include.ingest.__main__ import main as ingest_main
from include.ingest.pseudonym import pseudonym
from include.ingest.quarantine import store
from include.settings import settings
from include.warehouse.engine import connect
from tests.integration.yamls import own_yamls
from tests.outlet import HEADERS, drop, forget

pytestmark = pytest.mark.integration

DAY = date(2034, 6, 1)
FILE = f"demo/outlet/{DAY}/orders.csv"
GOOD = "Q{},person{}@example.org,Ohio,2034-06-01T01:00:00Z,created,USD,2034-06-01T09:00:00Z"


@pytest.fixture(scope="module")
def lake(warehouse, tmp_path_factory):
    os.environ["EMPORIUM_LAKE"] = str(tmp_path_factory.mktemp("quarantine") / "lake")
    settings.cache_clear()
    assert ingest_main(["prepare"]) == 0
    yield
    del os.environ["EMPORIUM_LAKE"]
    settings.cache_clear()


@pytest.fixture(autouse=True)
def _nothing_known(lake):
    forget()
    yield
    forget()


def query(text, *values):
    with connect() as conn:
        return conn.execute(text, values).fetchall()


def night(*bad, n=60):
    """Land, judge and load a day of ``n`` good orders and then bad ones."""
    drop(DAY, orders=[*(GOOD.format(at, at) for at in range(n)), *bad])
    line = ["--source", "demo_outlet", "--as-of", str(DAY)]
    assert ingest_main(["land", *line]) == 0
    rejudge()


def rejudge():
    line = ["--source", "demo_outlet", "--as-of", str(DAY)]
    assert gate_main(line) == 0
    assert ingest_main(["load", *line]) == 0


def emporium(*words, text=None):
    done = CliRunner().invoke(app, ["quarantine", *words], input=text)
    return done.exit_code, done.output


def shown():
    code, output = emporium("show", "--source", "demo_outlet", "--json")
    assert code == 0
    return [json.loads(line) for line in output.splitlines()]


def mend(*records):
    """As replay does, without two processes more."""
    assert store(map(json.dumps, records)).days == {"demo_outlet": [DAY]}
    rejudge()


def counts():
    return query("select n_in, n_loaded, n_duplicate, n_quarantined from ops.load_audit where entity = 'orders'")[0]


LOST = "Q90,x@example.org,Ohio,2034-06-01T01:00:00Z,lost,USD,2034-06-01T11:00:00Z"
SHORT = "Q91,y@example.org,Ohio"


def test_a_mended_row_and_a_mended_line_come_back_and_what_still_breaks_a_rule_stays(capfd):
    night(LOST, LOST.replace("Q90", "Q92"), SHORT)
    assert counts() == (63, 60, 0, 3)
    assert [(row["line"], row["rules"], row["columns"]) for row in shown()] == [
        (62, ["status_is_known"], ["status"]), (63, ["status_is_known"], ["status"]), (64, ["line_parses"], []),
    ]  # fmt: skip
    code, output = emporium("show", "--rule", "status_is_known", "--limit", "1")
    assert f"demo_outlet.orders of {DAY}, {FILE}:62: status_is_known (column status)" in output
    one, two, line = shown()
    one["payload"]["status"] = "shipped"
    two["payload"] |= {"status": "teleported", "currency": "dollars"}
    line["payload"] = {
        "order_id": "Q91", "customer_email": "Y@example.org ", "customer_region": "Ohio, by z@example.org",
        "ordered_at": "2034-06-01T01:00:00Z", "status": "created", "currency": "USD",
        "updated_at": "2034-06-01T08:00:00Z",
    }  # fmt: skip
    code, output = emporium("replay", "-", text="\n".join(map(json.dumps, (one, two, line))))
    assert code == 0, output + capfd.readouterr().err
    assert "3 rows mended, 0 unchanged." in output
    assert f"python -m expectations.raw --source demo_outlet --as-of {DAY}" in output

    found = query(
        "select order_id, customer_email, customer_region, status, known_at::text from raw_demo_outlet.orders "
        "where order_id >= 'Q90' order by 1"
    )
    assert found == [
        ("Q90", pseudonym("email", "x@example.org"), "Ohio", "shipped", "2034-06-01 11:00:00+00"),
        ("Q91", pseudonym("email", "y@example.org"), "Ohio, by ***@***", "created", "2034-06-01 08:00:00+00"),
    ]
    assert counts() == (63, 62, 0, 1)
    (left,) = shown()
    assert left["rules"] == ["status_is_known", "currency_matches"]
    assert left["payload"]["customer_email"] == pseudonym("email", "x@example.org"), "unchanged, so not hashed again"
    assert query("select count(*) from quarantine._mended where payload::text ~ 'example'") == [(0,)]
    code, output = emporium("list", "--source", "demo_outlet")
    assert "1 rows are set aside." in output
    assert "mended, loaded" in output

    # The night again, from the file: the mends hold, and a second repair stands on the first.
    night(LOST, LOST.replace("Q90", "Q92"), SHORT)
    assert counts() == (63, 62, 0, 1)
    left["payload"] |= {"status": "created", "currency": "USD"}
    mend(left)
    assert counts() == (63, 63, 0, 0)
    assert query("select status from raw_demo_outlet.orders where order_id = 'Q92'") == [("created",)]


def test_a_row_that_the_source_delivers_anew_loses_its_mend_and_it_is_said():
    night(LOST, SHORT)
    one, line = shown()
    one["payload"]["status"] = "shipped"
    line["payload"] = dict(one["payload"], order_id="Q91")
    mend(one, line)
    assert counts() == (62, 62, 0, 0)
    night(LOST.replace("lost", "gone"), SHORT + ",and more")
    assert counts() == (62, 60, 0, 2)
    output = emporium("list")[1]
    assert f"demo_outlet.orders of {DAY}: 2 of 2 mended rows fit no more" in output
    # And what was mended then is what it was, when the first delivery comes back.
    night(LOST, SHORT)
    assert counts() == (62, 62, 0, 0)
    assert "fit no more" not in emporium("list")[1]
    # A whole delivery leaves nothing behind, mended or not.
    night(n=62)
    assert counts() == (62, 62, 0, 0)
    assert query("select * from quarantine.orders") == []


def test_load_takes_no_mended_line_that_the_gate_has_not_laid_over(capfd):
    night(SHORT)
    (line,) = shown()
    line["payload"] = dict.fromkeys(HEADERS["orders"].split(",")) | {
        "order_id": "Q91", "ordered_at": "2034-06-01", "status": "created", "currency": "USD",
        "updated_at": "2034-06-01",
    }  # fmt: skip
    mend(line)
    assert counts() == (61, 61, 0, 0)
    arguments = ["--source", "demo_outlet", "--as-of", str(DAY)]
    assert ingest_main(["land", *arguments]) == 0
    assert ingest_main(["load", *arguments]) == 1
    assert "no verdict" in capfd.readouterr().err
    rejudge()
    assert counts() == (61, 61, 0, 0)


def test_what_cannot_be_a_mend_is_refused_as_a_whole_and_says_why():
    night(LOST, SHORT)
    one, line = shown()
    good = json.dumps({**one, "payload": one["payload"] | {"status": "created"}})

    def refused(record):
        code, output = emporium("replay", "-", text=f"{good}\n{json.dumps(record)}")
        assert code == 1
        assert query("select count(*) from quarantine._mended") == [(0,)]
        return " ".join(output.split())

    assert "Line 2: demo_outlet.orders of 2034-06-01" in refused({**one, "line": 5})
    assert "is not in the quarantine" in refused({**one, "line": 5})
    assert "there is no column colour" in refused({**one, "payload": {"colour": "red"}})
    assert "was no row, so give all its columns" in refused({**line, "payload": {"order_id": "Q91"}})
    assert "it lacks payload" in refused({key: one[key] for key in one if key != "payload"})
    assert "is not the row that was shown" in refused({**one, "original_sha256": "0" * 64})
    assert "holds a NUL" in refused({**one, "payload": one["payload"] | {"status": "a\0"}})
    assert "0 rows mended, 2 unchanged" in emporium("replay", "-", text=f"{json.dumps(one)}\n{json.dumps(line)}")[1]
    assert emporium("replay")[0] == emporium("replay", "--all", "--source", "demo_outlet")[0] == 1


def test_after_the_yaml_was_mended_the_same_rows_are_judged_anew(tmp_path):
    night(LOST)
    with own_yamls(tmp_path) as edit:
        edit("demo_outlet.orders", {"columns": {"status": {"required": True}}})
        rejudge()
        assert counts() == (61, 61, 0, 0)
    code, _ = emporium("replay", "--all", "--source", "demo_outlet", "--as-of", str(DAY))
    assert code == 0
    assert counts() == (61, 60, 0, 1)
