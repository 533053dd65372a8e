"""The conformance suite: what every connector must keep, checked against a real server, folder or database.

``pytest --emporium-connector=<module>:<Harness>``; see docs/write-a-connector.md.
"""

from include.conformance.harness import COLUMNS, Harness, Row, described

__all__ = ["COLUMNS", "Harness", "Row", "described"]
