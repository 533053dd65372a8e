"""### Ingest: what the shops knew by the end of the business day

Lands every active source in bronze (Delta), streams by Spark; gates it, loads it into `raw_<source>`, and makes
sessions of click events.
One partition key = one business day (UTC): a manual run needs a partition key `YYYY-MM-DD`, and a backfill
of past days takes just those days again. With `from` and `history` it loads a range of history in bulk
and starts nothing downstream.

Owner: data platform. Runbook: docs/runbooks/ingest.md."""

import json
from datetime import timedelta

from airflow.sdk import CronPartitionTimetable, Param, dag

from include.airflow import DAG_DEFAULTS, PLANNED_SOURCES, asset, command_task, mapped_command_task

PARAMS = {
    "source": Param(None, type=["null", "string"], pattern="^[a-z][a-z0-9_]{0,50}$", description="A source or a group"),
    "data": Param(None, type=["null", "string"], pattern="^[^']+$", description="Folder of a file source"),
    "from": Param(None, type=["null", "string"], format="date", description="First day, for a load of history"),
    "history": Param(False, type="boolean", description="Load only: start nothing downstream"),
}
GROUP = "{{ '--group ' ~ params.source if params.source else '' }}"
DATA = "{{ \"--data '\" ~ params.data ~ \"'\" if params.data else '' }}"
FROM = "{{ '--from ' ~ params['from'] if params['from'] else '' }}"
HISTORY = "{{ '--history' if params.history else '' }}"


@dag(
    # Midnight takes the day that has just ended. The tick is 00:00 because a backfill's bounds, which a person
    # picks as dates, are compared with the tick; run_immediately would start an unasked run on unpausing.
    schedule=CronPartitionTimetable(
        "0 0 * * *", timezone="UTC", run_offset=-1, run_immediately=timedelta(0), key_format="%Y-%m-%d"
    ),
    params=PARAMS,
    doc_md=__doc__,
    tags=["layer:ingest", "tier:1"],
    **DAG_DEFAULTS,
)
def ingest():
    plan = command_task("plan_sources", "include.ingest plan", GROUP, DATA, FROM, output_processor=json.loads)
    land = mapped_command_task("land_source", "python -m include.ingest land", plan, with_data=True)
    streams = command_task("land_streams", "spark_jobs.stream", PLANNED_SOURCES, FROM, pool="spark")
    gate = command_task("gate_raw", "expectations.raw", PLANNED_SOURCES, FROM, retries=0)
    load = mapped_command_task("load_source", "python -m include.ingest load", plan)
    sessions = command_task("build_sessions", "spark_jobs.sessions", PLANNED_SOURCES, FROM, pool="spark")
    close = command_task("close_day", "include.ingest close", PLANNED_SOURCES, FROM, HISTORY, outlets=[asset("raw")])
    plan >> streams
    [land, streams] >> gate >> [load, sessions] >> close


ingest()
