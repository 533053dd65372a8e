"""Partitioned assets: one name per layer boundary, keyed by the business day.

A layer emits exactly one asset, from its last task: clearing any failed task of a layer with what hangs
on it then ends in exactly one run of the next layer.

Names, not addresses: the same asset whether the warehouse is embedded or not.
"""

from __future__ import annotations

from airflow.sdk import Asset

USE_CASES = ("demand_forecast", "demand_category", "churn")
"""Use cases trained and scored every night; each is a folder of ``ml_tasks``."""


def asset(layer: str) -> Asset:
    """The asset that ``layer`` emits when a day of it is done: raw, core, features, models, predictions."""
    return Asset(name=layer, uri=f"emporium://{layer}")
