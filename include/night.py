"""A night from the outside: trigger it over Airflow's REST API, follow it, and show what landed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from include.ingest.plan import Opened
from include.services import supervisor
from include.services.airflow_api import FINISHED, Airflow, AirflowError
from include.settings import ROOT, settings
from include.warehouse.engine import connect, dsn

LAYERS = ("ingest", "warehouse", "features", "train", "score", "monitor")
"""The DAGs of a night, in the order of the data."""

BESIDE = ("maintenance",)
"""DAGs that have a schedule of their own and no part in a night."""

POLL_SECONDS = 1.0
HAND_OFF_TIMEOUT_SECONDS = 180
"""How long a layer may take to start after the one before it ended."""

OUTAGE_SECONDS = 120
"""How long Airflow may be out of reach, while something is restarted, before the night is given up."""


class NightError(Exception):
    """The night is not green; the message names the task and shows the tail of its log."""


@dataclass
class Layer:
    """What is known of one layer's run."""

    dag_id: str
    run_id: str | None = None
    state: str = "waiting"
    tasks: list[dict[str, Any]] = field(default_factory=list)
    started: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0

    def done(self) -> str:
        finished = sum(task["state"] in ("success", "skipped") for task in self.tasks)
        return f"{finished}/{len(self.tasks)}" if self.tasks else ""

    def running(self) -> str:
        names = [_task_name(task) for task in self.tasks if task["state"] in ("running", "up_for_retry", "failed")]
        return ", ".join(names)


def _task_name(task: dict[str, Any]) -> str:
    label = task.get("rendered_map_index")
    return f"{task['task_id']}[{label}]" if label else task["task_id"]


# --- which night ---------------------------------------------------------------------------------


def run(console: Console, *, as_of: date | None, first: date | None, group: str, data: Path | None) -> None:
    """Everything from services to the final table. Raises ``NightError`` when the night is not green."""
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - started:5.0f} s] {text}", markup=False)

    from include.ingest.plan import open_group
    from include.ingest.tables import prepare

    supervisor.up(say)
    prepare()
    if group == "demo":
        from include.demo import fill

        fill(progress=say)
    if data:
        data = data.expanduser().resolve()
    try:
        opened = open_group(group, data)
    except (ValueError, FileNotFoundError) as error:
        raise NightError(str(error)) from error
    day = as_of or _next_night(opened)
    if not opened.has(day) or day == opened.first:
        raise NightError(f"{group} has data {_days_of(opened)}; {day} is not a day of it to run.")
    api = Airflow()
    register(api)
    loaded = _loaded_until(group)
    conf: dict[str, Any] = {"source": group}
    if data:
        conf["data"] = str(data)
    begin = first or (loaded + timedelta(days=1) if loaded else opened.first or day)
    if begin < day:
        history = day - timedelta(days=1)
        say(f"loading history {begin} .. {history} of {group}")
        follow(console, api, history, {**conf, "from": begin.isoformat(), "history": True}, layers=LAYERS[:1])
    say(f"running the night of {day} ({group})")
    layers = follow(console, api, day, conf, layers=LAYERS)
    show_night(console, day, layers)
    say(f"night {day} is green")


def register(api: Airflow) -> None:
    """Make Airflow ready for a night, whoever triggers it: every DAG known and unpaused, every pool there."""
    api.wait_for_dags(LAYERS + BESIDE)
    for dag_id in LAYERS + BESIDE:
        api.unpause(dag_id)
    for name, pool in json.loads((ROOT / "include" / "airflow" / "pools.json").read_text()).items():
        api.set_pool(name, pool["slots"], pool["description"])


def _groups_sources(group: str) -> list[str]:
    from include.ingest.sources import sources

    return [source.source for source in sources(group)]


def _loaded_until(group: str) -> date | None:
    """The last day of the unbroken stretch of days that every source of the group has from its first on."""
    names = _groups_sources(group)
    with connect() as conn:
        rows = conn.execute(
            """
            select source, min(day) from (
              select source, partition_on as day,
                     lead(partition_on) over (partition by source order by partition_on) as following
              from (select distinct source, partition_on from ops.load_audit where source = any(%s)) as loaded
            ) as stretches
            where following is null or following > day + 1 group by 1
            """,
            (names,),
        ).fetchall()
    return min(row[1] for row in rows) if len(rows) == len(names) else None


def _next_night(opened: Opened) -> date:
    """The day to run when none was named: the demo's first night, or the day after the newest green night."""
    with connect() as conn:
        newest = conn.execute(
            """
            select max(p.as_of) from ops.publication p
            join ops.load_audit l on l.partition_on = p.as_of and l.source = any(%s)
            where p.target = 'churn_score'
            """,
            (_groups_sources(opened.group),),
        ).fetchone()
    if newest and newest[0]:
        if opened.last and newest[0] >= opened.last:
            raise NightError(f"{opened.group} is done to its last day {opened.last}: name a day, AS_OF=YYYY-MM-DD.")
        return newest[0] + timedelta(days=1)
    if opened.group == "demo":
        return date.fromisoformat(settings().demo_first_night)
    raise NightError(f"Name the first night with AS_OF=YYYY-MM-DD: {opened.group} has data {_days_of(opened)}.")


def _days_of(opened: Opened) -> str:
    return f"from {opened.first or 'whenever you say'} to {opened.last or 'today'}"


# --- following -----------------------------------------------------------------------------------


def follow(console: Console, api: Airflow, day: date, conf: dict[str, Any], layers: tuple[str, ...]) -> list[Layer]:
    """Trigger ``ingest`` for the day and follow the runs it causes, showing progress; returns the layers.

    Raises ``NightError`` as soon as a run has failed.
    """
    key = day.isoformat()
    before = {dag_id: {run["dag_run_id"] for run in api.runs(dag_id, key)} for dag_id in layers}
    run_id = api.trigger("ingest", key, conf)
    state = [Layer(dag_id) for dag_id in layers]
    state[0].run_id, state[0].started = run_id, time.monotonic()
    with _display(console, key, state) as show:
        current, since, reached = 0, time.monotonic(), time.monotonic()
        while current < len(state):
            layer = state[current]
            try:
                _refresh(api, key, layer, before[layer.dag_id])
                reached = time.monotonic()
            except AirflowError as error:
                if time.monotonic() - reached > OUTAGE_SECONDS:
                    raise NightError(f"{error} What runs goes on; `./emporium status` tells.") from error
            show()
            if layer.run_id is None and time.monotonic() - since > HAND_OFF_TIMEOUT_SECONDS:
                raise NightError(
                    f"{layer.dag_id} as of {key} did not start within {HAND_OFF_TIMEOUT_SECONDS} s: "
                    f"look at {settings().airflow_base_url}/dags/{layer.dag_id}."
                )
            if layer.state == "failed":
                raise NightError(_failure(api, key, layer))
            if layer.state == "success":
                since = time.monotonic()
                current += 1
            else:
                time.sleep(POLL_SECONDS)
    return state


def _refresh(api: Airflow, key: str, layer: Layer, before: set[str]) -> None:
    """Bring what is known of a layer up to date."""
    if layer.run_id is None:
        new = [run for run in api.runs(layer.dag_id, key) if run["dag_run_id"] not in before]
        if not new:
            return
        layer.run_id, layer.started = new[-1]["dag_run_id"], time.monotonic()
    state = api.run(layer.dag_id, layer.run_id)["state"]
    layer.tasks = api.task_instances(layer.dag_id, layer.run_id)
    if state in FINISHED:
        layer.ended = time.monotonic()
    layer.state = state


def _failure(api: Airflow, key: str, layer: Layer) -> str:
    failed = [task for task in layer.tasks if task["state"] == "failed"] or layer.tasks
    lines = [f"The night of {key} failed in {layer.dag_id}: {', '.join(_task_name(task) for task in failed)}."]
    for task in failed[:2]:
        assert layer.run_id is not None
        log = api.task_log(layer.dag_id, layer.run_id, task["task_id"], task["try_number"], task["map_index"])
        lines += [f"--- the end of the log of {_task_name(task)}:", *log[-20:]]
    url = f"{settings().airflow_base_url}/dags/{layer.dag_id}/runs/{layer.run_id}"
    lines.append(
        f"Mend it and run the same again, or clear the task in {url}. Runbook: docs/runbooks/{layer.dag_id}.md"
    )
    return "\n".join(lines)


@contextlib.contextmanager
def _display(console: Console, key: str, state: list[Layer]) -> Iterator[Any]:
    """A live table in a terminal; plain lines, one per change, in a log."""
    if console.is_terminal:
        with Live(_progress(key, state), console=console, refresh_per_second=4, transient=True) as live:
            yield lambda: live.update(_progress(key, state))
        console.print(_progress(key, state))
        return
    told: dict[str, str] = {}

    def tell() -> None:
        for layer in state:
            if layer.run_id is None:
                continue
            if layer.state in FINISHED:
                text = f"{layer.state} in {layer.seconds:.0f} s ({layer.done()} tasks)"
            else:
                text = f"{layer.state} {layer.done()} {layer.running()}".rstrip()
            if told.get(layer.dag_id) != text:
                told[layer.dag_id] = text
                console.print(f"  {key} {layer.dag_id:<10} {text}", markup=False)

    yield tell


def _progress(key: str, state: list[Layer]) -> Table:
    table = Table(title=f"Night of {key}", title_justify="left")
    for header in ("layer", "state", "tasks", "seconds", "now"):
        table.add_column(header)
    colours = {"success": "green", "failed": "red", "running": "yellow"}
    for layer in state:
        colour = colours.get(layer.state, "dim")
        seconds = f"{layer.seconds:.0f}" if layer.started else ""
        table.add_row(layer.dag_id, f"[{colour}]{layer.state}[/]", layer.done(), seconds, escape(layer.running()))
    return table


# --- what landed ---------------------------------------------------------------------------------


def show_night(console: Console, day: date, layers: list[Layer]) -> None:
    """The closing table: what landed where, where to look, and the credentials."""
    table = Table(title=f"What landed as of {day}", title_justify="left")
    for header in ("table", "rows", "as of", "model", "checks passed"):
        table.add_column(header, overflow="fold")
    with connect() as conn:
        for gate, n_passed, n_rules in conn.execute(
            "select gate, count(*) filter (where is_passed), count(*) from ops.quality_result where as_of = %s "
            "group by 1",
            (day,),
        ).fetchall():
            console.print(f"gate {gate}: {n_passed} of {n_rules} rules passed", markup=False)
        for source, n_in, n_loaded, n_duplicate, n_quarantined in conn.execute(
            "select source, sum(n_in), sum(n_loaded), sum(n_duplicate), sum(n_quarantined) from ops.load_audit "
            "where partition_on = %s group by 1 order by 1",
            (day,),
        ).fetchall():
            console.print(
                f"{source}: {n_in:,} rows in = {n_loaded:,} loaded + {n_duplicate:,} duplicate"
                f" + {n_quarantined:,} quarantined",
                markup=False,
            )
        checks: dict[str, str] = dict(
            conn.execute(
                "select target, count(*) filter (where is_passed) || ' of ' || count(*) from ops.quality_result "
                "where as_of = %s group by 1",
                (day,),
            ).fetchall()
        )
        for target, n_rows in conn.execute(
            "select target, n_rows from ops.publication where as_of = %s order by 1", (day,)
        ).fetchall():
            model = ""
            if conn.execute("select to_regclass('predictions.' || %s)", (target,)).fetchone() != (None,):
                from psycopg import sql

                found = conn.execute(
                    sql.SQL(
                        "select string_agg(distinct model_name || ' v' || model_version, ', ') from {} where as_of = %s"
                    ).format(sql.Identifier("predictions", target)),
                    (day,),
                ).fetchone()
                model = (found[0] if found else "") or ""
            table.add_row(f"bi.{target}", f"{n_rows:,}", str(day), model, checks.get(target, ""))
    console.print(table)
    console.print("layers: " + ", ".join(f"{layer.dag_id} {layer.seconds:.0f} s" for layer in layers), markup=False)
    show_links(console)


def show_links(console: Console) -> None:
    """Where to look, and the generated credentials."""
    from include.secrets import secret

    cfg = settings()
    for name, text in {
        "Airflow": f"{cfg.airflow_base_url}  (user admin, password {secret('airflow_admin')})",
        "MLflow": cfg.mlflow_base_url,
        "Docs": f"http://{cfg.host}:{cfg.docs_port}",
        "BI": f"psql '{dsn('bi_reader')}' -c 'select * from bi.churn_score_latest limit 10'",
        "Stop": "make stop",
    }.items():
        console.print(f"{name:<8}{text}", markup=False)


def recent(n: int = 3) -> dict[str, Any]:
    """The newest partitions per layer from Airflow and what failed; empty where Airflow is down."""
    try:
        api = Airflow(retry_seconds=0.0)
        newest = {dag_id: api.runs(dag_id)[::-1][:n] for dag_id in LAYERS}
    except AirflowError as error:
        return {"error": str(error)}
    out: dict[str, Any] = {}
    for dag_id, runs in newest.items():
        out[dag_id] = [
            {"partition": run.get("partition_key"), "state": run["state"], "run_id": run["dag_run_id"]} for run in runs
        ]
        for entry in out[dag_id]:
            if entry["state"] == "failed":
                tasks = api.task_instances(dag_id, entry["run_id"])
                entry["failed_tasks"] = [_task_name(task) for task in tasks if task["state"] == "failed"]
    return out


def show_status(console: Console, state: dict[str, Any]) -> None:
    """``./emporium status`` for people."""
    table = Table(title=f"Services of {state['home']}", title_justify="left")
    for header in ("service", "state", "pid", "memory", "address"):
        table.add_column(header, overflow="fold")
    for name, service in state["services"].items():
        # Proportional set size where the system tells it: pages that processes share count once.
        megabytes = service.get("pss_mb") or service.get("rss_mb")
        memory = f"{megabytes:.0f} MB" if megabytes else ""
        table.add_row(name, service["state"], str(service.get("pid") or ""), memory, service.get("url") or "")
    console.print(table)
    nights = state["nights"]
    if "error" in nights:
        console.print(nights["error"], markup=False)
        return
    table = Table(title="Last partitions per layer", title_justify="left")
    for header in ("layer", "newest first", "failed"):
        table.add_column(header, overflow="fold")
    for dag_id, runs in nights.items():
        failed = [f"{run['partition']}: {', '.join(run['failed_tasks'])}" for run in runs if run.get("failed_tasks")]
        newest = ", ".join(f"{run['partition']} {run['state']}" for run in runs)
        table.add_row(dag_id, newest, escape("; ".join(failed)))
    console.print(table)
