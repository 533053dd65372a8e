"""### Score: predictions with the champions, audited and swapped in

Rows are written beside, gated, and published in one transaction per table with a fencing token.

Owner: data science. Runbook: docs/runbooks/score.md."""

from airflow.sdk import PartitionedAssetTimetable, dag

from include.airflow import DAG_DEFAULTS, USE_CASES, asset, command_task


@dag(
    schedule=PartitionedAssetTimetable(assets=asset("models")),
    doc_md=__doc__,
    tags=["layer:predictions", "tier:1"],
    **DAG_DEFAULTS,
)
def score():
    scored = [command_task(f"score_{use_case}", "ml_tasks.score", use_case, pool="train") for use_case in USE_CASES]
    gate = command_task("gate_predictions", "expectations.predictions", retries=0)
    publish = command_task("publish_predictions", "include.warehouse.publish", outlets=[asset("predictions")])
    scored >> gate >> publish


score()
