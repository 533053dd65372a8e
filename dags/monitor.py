"""### Monitor: is the night fresh, whole and plausible

Freshness, volume, drift and forecasts against what really happened, into `ops.monitor_result`; the docs site
is built anew when a model changed.

Owner: data platform. Runbook: docs/runbooks/monitor.md."""

from airflow.sdk import PartitionedAssetTimetable, dag

from include.airflow import DAG_DEFAULTS, asset, command_task


@dag(
    schedule=PartitionedAssetTimetable(assets=asset("predictions")),
    doc_md=__doc__,
    tags=["layer:operations", "tier:2"],
    **DAG_DEFAULTS,
)
def monitor():
    command_task("check_night", "include.monitor", retries=1)
    command_task("build_docs", "include.dbt docs --if-changed", retries=1)


monitor()
