"""### Warehouse: facts and dimensions as of the business day

dbt builds staging, intermediate and marts with their tests; only a green build is merged into what BI reads
and exported to the lake.

Owner: data platform. Runbook: docs/runbooks/warehouse.md."""

from airflow.sdk import PartitionedAssetTimetable, dag

from include.airflow import DAG_DEFAULTS, asset, command_task


@dag(
    schedule=PartitionedAssetTimetable(assets=asset("raw")),
    doc_md=__doc__,
    tags=["layer:warehouse", "tier:1"],
    **DAG_DEFAULTS,
)
def warehouse():
    build = command_task("build_models", "include.dbt build", pool="warehouse")
    publish = command_task("publish_marts", "include.warehouse.marts")
    export = command_task("export_lake", "include.warehouse.export", outlets=[asset("core")])
    build >> publish >> export


warehouse()
