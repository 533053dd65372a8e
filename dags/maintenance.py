"""### Maintenance: few large files in the lake, and no old ones

Compacts and vacuums every Delta table, cuts its log, and removes old pieces of streams and old logs of tasks. It comes
after the night, every day: a table that is in order costs a second, and one that a task is writing waits for the next.

Owner: data platform. Runbook: docs/runbooks/maintenance.md."""

from datetime import timedelta

from airflow.sdk import CronPartitionTimetable, dag

from include.airflow import DAG_DEFAULTS, command_task


@dag(
    schedule=CronPartitionTimetable(
        "0 6 * * *", timezone="UTC", run_offset=-1, run_immediately=timedelta(0), key_format="%Y-%m-%d"
    ),
    doc_md=__doc__,
    tags=["layer:operations", "tier:3"],
    **DAG_DEFAULTS,
)
def maintenance():
    command_task("care_for_lake", "include.maintenance")


maintenance()
