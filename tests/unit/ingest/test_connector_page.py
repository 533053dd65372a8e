"""docs/write-a-connector.md builds the package in examples/connector; docs/add-a-source.md names what exists."""

import re

import pytest
import yaml

from include.conformance import Harness
from include.conformance.plugin import SUITE
from include.ingest.connectors import Connector, connector_class
from include.ingest.sources import Deletes
from include.settings import ROOT

EXAMPLE = ROOT / "examples" / "connector"
PAGE = (ROOT / "docs" / "write-a-connector.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("language", "chosen", "file"),
    [
        ("toml", slice(None), "pyproject.toml"),
        ("python", slice(0, -1), "emporium_till.py"),
        ("python", slice(-1, None), "emporium_till_harness.py"),
        ("yaml", slice(None), "corner_till.yaml"),
    ],
)
def test_code_of_the_page_is_the_packages(language, chosen, file):
    found = blocks(language)[chosen]
    assert found
    assert lines("\n".join(found)) == lines((EXAMPLE / file).read_text())


def test_connector_is_built_in_steps_and_stays_under_a_hundred_lines():
    assert len(blocks("python")) > 4
    assert len((EXAMPLE / "emporium_till.py").read_text().splitlines()) < 100


def test_options_that_the_page_names_exist():
    assert SUITE.is_file()
    for name in re.findall(r"`(keys|discover|read|check_entity)`", PAGE):
        assert hasattr(Connector, name)
    for name in ("secrets", "refused", "columns", "can_drift"):
        assert f"`{name}`" in PAGE
        assert hasattr(Harness, name)


def test_deletes_of_the_page_on_sources_are_valid():
    page = (ROOT / "docs" / "add-a-source.md").read_text()
    found = re.findall(r"`(deletes: \{.*?\})`", page)
    assert len(found) == 2
    for deletes in found:
        assert Deletes.model_validate(yaml.safe_load(deletes)["deletes"])


def test_settings_that_the_page_on_sources_lists_are_the_connectors():
    page = (ROOT / "docs" / "add-a-source.md").read_text()
    rows = re.findall(r"^\| \[?`(sql|files|stream|rest|dump)`.*?\|[^|]*\|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)
    assert len(rows) == 5
    for name, connection, read in rows:
        kind = connector_class(name)
        assert set(re.findall(r"`(\w+)`", connection)) <= set(kind.Connection.model_fields), name
        assert set(re.findall(r"`(\w+)`", read)) <= set(kind.Read.model_fields), name
