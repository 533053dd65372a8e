"""The pytest plugin behind ``--emporium-connector``.

Emporium's own ``conftest.py`` loads it. In another repository: ``PYTHONPATH=<emporium> pytest -p
include.conformance.plugin --emporium-connector=<module>:<Harness>``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from include.conformance.harness import Harness

SUITE = Path(__file__).with_name("suite.py")
HARNESSES = pytest.StashKey[dict[str, Harness]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--emporium-connector",
        action="append",
        default=[],
        metavar="MODULE:HARNESS",
        help="run Emporium's conformance suite on the connector of this harness; may be given several times",
    )


def pytest_configure(config: pytest.Config) -> None:
    """With the option alone, the suite is what runs; with files beside it, it runs too."""
    named = config.getoption("emporium_connector")
    config.stash[HARNESSES] = {one: _harness(one) for one in named}
    if named:
        is_asked = config.args_source is pytest.Config.ArgsSource.ARGS
        config.args = [*(config.args if is_asked else []), str(SUITE)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of the suite runs once a harness."""
    if "harness" in metafunc.fixturenames and metafunc.module.__name__.endswith("conformance.suite"):
        found = metafunc.config.stash[HARNESSES]
        metafunc.parametrize("harness", list(found.values()), ids=list(found), scope="module")


def _harness(named: str) -> Harness:
    module, _, attribute = named.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"--emporium-connector={named}: {error}; give module:Harness") from error
    if not (isinstance(found, type) and issubclass(found, Harness)):
        raise pytest.UsageError(f"--emporium-connector={named}: not a subclass of include.conformance.Harness")
    return found()
