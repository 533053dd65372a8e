"""Makes ``pytest --emporium-connector=...`` known, wherever in the checkout pytest is started."""

PLUGIN = "include.conformance.plugin"


def pytest_addoption(parser, pluginmanager):
    # A third party, whose pytest starts elsewhere, has loaded it by -p.
    if not pluginmanager.has_plugin(PLUGIN):
        pluginmanager.import_plugin(PLUGIN)
