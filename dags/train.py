"""### Train: a challenger per use case, against the naive rules and the champion

A challenger that does not win is registered and not promoted; the night goes on with the champion.

Owner: data science. Runbook: docs/runbooks/train.md."""

from airflow.sdk import PartitionedAssetTimetable, dag

from include.airflow import DAG_DEFAULTS, asset, command_task
from include.airflow.assets import USE_CASES


@dag(
    schedule=PartitionedAssetTimetable(assets=asset("features")),
    doc_md=__doc__,
    tags=["layer:models", "tier:2"],
    **DAG_DEFAULTS,
)
def train():
    for use_case in USE_CASES:
        command_task(
            f"train_{use_case}", "ml_tasks.train", use_case, pool="train", outlets=[asset(f"model_{use_case}")]
        )


train()
