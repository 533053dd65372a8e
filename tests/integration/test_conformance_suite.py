"""The conformance suite finds every mistake that it is there to find, and nothing wrong with a good connector."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict

import pytest

from include.settings import ROOT
from tests.integration.faulty_connectors import FAULTS

pytestmark = pytest.mark.integration

MODULE = "tests.integration.faulty_connectors"


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Fault -> test -> passed, failed or skipped: all tests without a fault, with one those that must find it."""
    report = tmp_path_factory.mktemp("suite") / "report.xml"
    named = [f"--emporium-connector={MODULE}:{fault}" for fault in FAULTS]
    wanted = [
        f"({MODULE}:{fault} and ({' or '.join({test.split('[')[0] for test in tests})}))"
        for fault, tests in FAULTS.items()
        if tests
    ]
    named += ["-k", " or ".join([f"{MODULE}:none", *wanted])]
    # Tracebacks nobody reads, of some fifty red tests, and the import of hypothesis took a third of the time.
    lean = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *lean, f"--junitxml={report}", *named],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ET.parse(report).iter("testcase"):
        name, _, parameters = case.attrib["name"].rstrip("]").partition("[")
        fault = next(one for one in FAULTS if f"{MODULE}:{one}" in parameters.split("-"))
        rest = "-".join(one for one in parameters.split("-") if not one.startswith(MODULE))
        outcome = {"failure": "failed", "error": "error", "skipped": "skipped"}
        verdict = next((outcome[child.tag] for child in case if child.tag in outcome), "passed")
        found[fault][f"{name}[{rest}]" if rest else name] = verdict
    return found


def failed(verdicts: dict[str, str]) -> set[str]:
    return {name for name, verdict in verdicts.items() if verdict != "passed"}


def test_connector_without_a_fault_passes_every_test(verdicts):
    assert failed(verdicts["none"]) == set()
    assert len(verdicts["none"]) > 30


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "none"])
def test_fault_turns_its_test_red(verdicts, fault):
    assert FAULTS[fault] <= failed(verdicts[fault]), f"{fault} is not found"


def test_every_test_of_the_suite_has_a_fault_that_turns_it_red(verdicts):
    assert set(verdicts["none"]) - set().union(*FAULTS.values()) == set()
