"""Makes ``pytest --emporium-connector=...`` known, wherever pytest is started from."""

pytest_plugins = ["include.conformance.plugin"]
