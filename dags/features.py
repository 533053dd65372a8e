"""### Features: point-in-time feature views as of the business day

One Spark session builds every view; the gate audits them before any model sees them.

Owner: data platform. Runbook: docs/runbooks/features.md."""

from airflow.sdk import PartitionedAssetTimetable, dag

from include.airflow import DAG_DEFAULTS, asset, command_task

VIEWS = ("user_behavior", "vendor_performance", "demand_history")


@dag(
    schedule=PartitionedAssetTimetable(assets=asset("core")),
    doc_md=__doc__,
    tags=["layer:features", "tier:1"],
    **DAG_DEFAULTS,
)
def features():
    build = command_task("build_features", "spark_jobs.features", *VIEWS, pool="spark")
    gate = command_task("gate_features", "expectations.features", retries=0, outlets=[asset("features")])
    build >> gate


features()
