"""### Train: a challenger per use case, against the naive rules and the champion

A challenger that does not win is registered and not promoted; the night goes on with the champion.

Owner: data science. Runbook: docs/runbooks/train.md."""

from airflow.sdk import PartitionedAssetTimetable, dag

from include.airflow import DAG_DEFAULTS, USE_CASES, asset, command_task


@dag(
    schedule=PartitionedAssetTimetable(assets=asset("features")),
    doc_md=__doc__,
    tags=["layer:models", "tier:2"],
    **DAG_DEFAULTS,
)
def train():
    trained = [command_task(f"train_{use_case}", "ml_tasks.train", use_case, pool="train") for use_case in USE_CASES]
    champions = command_task("check_champions", "ml_tasks.champions", outlets=[asset("models")])
    trained >> champions


train()
