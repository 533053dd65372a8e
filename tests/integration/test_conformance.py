"""The conformance suite on Emporium's own connectors and on a third party's package, each read for real."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
import yaml

from include.settings import ROOT
from include.warehouse.engine import connect
from tests.integration import mariadb as mariadb_server

pytestmark = pytest.mark.integration

HARNESSES = "tests.integration.conformance_harnesses"
EXAMPLE = ROOT / "examples" / "connector"
DAY = date(2031, 7, 1)


def run_suite(report: Path, *harnesses: str, **environment: str) -> tuple[dict[str, dict[str, str]], str]:
    """Harness -> test -> passed, failed, error or skipped, and what pytest printed; as a third party runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "include.conformance.plugin", "-p", "no:cacheprovider",
         f"--junitxml={report}", *(f"--emporium-connector={one}" for one in harnesses)],
        cwd=report.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(report).iter("testcase"):
        named = next(one for one in harnesses if re.search(rf"{re.escape(one)}(?![\w.:])", case.attrib["name"]))
        tags = {child.tag for child in case}
        outcomes = (("failure", "failed"), ("error", "error"), ("skipped", "skipped"))
        verdict = next((word for tag, word in outcomes if tag in tags), "passed")
        found[named][case.attrib["name"].replace(named, "")] = verdict
    return found, done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The example package, installed into a folder of its own, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "connector", tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, source)
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python",
         sys.executable, "--target", str(target), str(source)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


OWN = ["Postgres", "MariaDB", "Csv", "Jsonl", "Rest"]


@pytest.fixture(scope="module")
def own(warehouse, tmp_path_factory, request) -> tuple[dict[str, dict[str, str]], str]:
    """The suite's verdicts on Emporium's own connectors, of one run."""
    names, environment = list(OWN), {"PYTHONPATH": str(ROOT)}
    if mariadb_server.missing():
        names.remove("MariaDB")
    else:
        environment["EMPORIUM_TEST_MARIADB_PORT"] = str(request.getfixturevalue("mariadb").port)
    report = tmp_path_factory.mktemp("own") / "report.xml"
    return run_suite(report, *(f"{HARNESSES}:{name}" for name in names), **environment)


@pytest.mark.parametrize("name", OWN)
def test_own_connector_conforms(own, name):
    if name == "MariaDB" and (reason := mariadb_server.missing()):
        pytest.skip(reason)
    verdicts, printed = own
    found = verdicts[f"{HARNESSES}:{name}"]
    assert len(found) > 30
    assert {test for test, verdict in found.items() if verdict in ("failed", "error")} == set(), printed[-6000:]


def test_third_partys_package_conforms(package, tmp_path):
    named = "emporium_till_harness:TillHarness"
    paths = os.pathsep.join([str(ROOT), str(package)])
    verdicts, printed = run_suite(tmp_path / "report.xml", named, PYTHONPATH=paths)
    found = verdicts[named]
    assert len(found) > 30
    # The till has no password; everything else is tried.
    assert {test.split("[")[0] for test, verdict in found.items() if verdict == "skipped"} == {
        "test_secret_is_in_no_log_no_row_and_no_description",
        "test_refused_login_is_a_plain_error_without_the_secret",
    }
    assert "passed" in printed
    assert {test for test, verdict in found.items() if verdict in ("failed", "error")} == set(), printed[-6000:]


def test_connector_is_under_a_hundred_lines():
    assert len((EXAMPLE / "emporium_till.py").read_text().splitlines()) < 100
    assert len((EXAMPLE / "emporium_till_harness.py").read_text().splitlines()) < 50


def till(path: Path) -> None:
    """A till with three sales of DAY, Berlin time: two good ones, one without an article, one of the day before."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "create table sale (sale_id integer primary key, sold_at text, article text, quantity integer, "
            "price text, loyalty_card text)"
        )
        db.executemany(
            "insert into sale values (?, ?, ?, ?, ?, ?)",
            [
                (1, "2031-07-01 01:30:00", "bread", 1, "3.20", "card-77"),
                (2, "2031-07-01 02:30:00", "milk", 2, "1.10", "card-77"),
                (3, "2031-07-01 12:00:00.5", "apples", 6, "0.40", None),
                (4, "2031-07-01 13:00:00", None, 1, "9.99", None),
            ],
        )


def test_installed_connector_lands_and_loads_like_any_other(package, warehouse, tmp_path):
    """The package is found by its entry point, and the YAML of the documentation is loaded through every step."""
    yaml_text = (EXAMPLE / "corner_till.yaml").read_text().replace("/srv/till/till.db", str(tmp_path / "till.db"))
    sources = tmp_path / "sources"
    sources.mkdir()
    described = yaml.safe_load(yaml_text)
    described["entities"]["sales"]["quarantine_threshold"] = 0.5
    (sources / "corner_till.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    till(tmp_path / "till.db")
    script = tmp_path / "night.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import include.ingest.sources as sources\n"
        f"sources.FOLDER = Path({str(sources)!r})\n"
        "from expectations.raw import main as gate\n"
        "from include.ingest.__main__ import main as ingest\n"
        f"day = ['--source', 'corner_till', '--as-of', '{DAY}']\n"
        "sys.exit(ingest(['prepare']) or ingest(['land', *day]) or gate(day) or ingest(['load', *day]))\n"
    )
    paths = os.pathsep.join([str(ROOT), str(package)])
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with connect("loader") as conn:
        rows = conn.execute(
            "select sale_id, sold_at at time zone 'UTC', article, quantity, price::text, loyalty_card "
            "from raw_corner_till.sales order by sale_id"
        ).fetchall()
        bad = conn.execute("select rule from quarantine.sales where source = 'corner_till'").fetchall()
    assert [(row[0], str(row[1]), *row[2:5]) for row in rows] == [
        (2, "2031-07-01 00:30:00", "milk", 2, "1.1000"),
        (3, "2031-07-01 10:00:00.500000", "apples", 6, "0.4000"),
    ]
    assert rows[0][5]
    assert "card-77" not in rows[0][5]
    assert bad == [("article_is_present",)]


def test_unknown_harness_is_a_plain_usage_error(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "include.conformance.plugin", "--emporium-connector=nowhere:Harness"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert "--emporium-connector=nowhere:Harness" in done.stderr + done.stdout
