"""Partitioned assets: one name per layer boundary, keyed by the business day.

Names, not addresses: the same asset whether the warehouse is embedded or not.
"""

from __future__ import annotations

from functools import reduce
from operator import and_

from airflow.sdk import Asset

USE_CASES = ("demand_forecast", "demand_category", "churn")
"""Use cases trained and scored every night; each is a folder of ``ml_tasks``."""


def asset(name: str) -> Asset:
    """The asset called ``name``: ``raw``, ``core`` (the lake copy), ``marts`` (what BI reads), ``features``, ``model_<use case>`` or ``predictions``."""
    return Asset(name=name, uri=f"emporium://{name}")


def models():
    """All models of a day: the scorer waits for every one."""
    return reduce(and_, [asset(f"model_{use_case}") for use_case in USE_CASES])
