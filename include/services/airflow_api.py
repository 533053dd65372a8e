"""A small client of Airflow's REST API v2: what the command line and the end-to-end tests need.

Facts found on Airflow 3.3 (docs/decisions/0002-supervision.md has the rest): a run's partition key is given in
the trigger body and travels with its asset events; ``conf`` does not travel; runs are filtered by key with
``partition_key_pattern`` (``partition_key`` is ignored without an error); clearing a task re-emits its asset
events, so that its consumers get a new run of the same key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from datetime import date
from types import TracebackType
from typing import Any, Self

import httpx

from include.secrets import secret
from include.services.environment import AIRFLOW_USER
from include.settings import settings

RETRY_SECONDS = 20.0
PAGE = 100
FINISHED = ("success", "failed")
"""States of a run after which it changes no more by itself."""


class AirflowError(RuntimeError):
    """Airflow refused a request; the text is its reason."""


class Airflow:
    """A session with Airflow. ``with Airflow() as airflow: airflow.trigger("ingest", "2025-12-31")``."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        user: str = AIRFLOW_USER,
        password: str | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._retry_seconds = retry_seconds
        self._user = user
        self._password = password
        # trust_env off: a proxy of the shell must not come between us and our own services.
        self._http = httpx.Client(
            base_url=base_url or settings().airflow_base_url, timeout=60, trust_env=settings().airflow_url is not None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # ---- runs ----

    def trigger(self, dag_id: str, partition_key: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run of ``dag_id`` for a business day; returns its run id. A second run of the same key is a rerun.

        Raises ``AirflowError`` for an unknown DAG or a key that is not of the DAG's format.
        """
        body = {"logical_date": None, "partition_key": partition_key, "conf": conf or {}}
        return self._send("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def runs(self, dag_id: str, partition_key: str | None = None) -> list[dict[str, Any]]:
        """Runs of a DAG, oldest first, of one business day or of all; each as Airflow's ``DAGRunResponse``."""
        query = {"order_by": "id", **({"partition_key_pattern": partition_key} if partition_key else {})}
        found = self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", query)
        return [run for run in found if partition_key is None or run["partition_key"] == partition_key]

    def newest_run(self, dag_id: str, partition_key: str) -> dict[str, Any] | None:
        """The newest run of a business day, or None."""
        return next(iter(self.runs(dag_id, partition_key)[::-1]), None)

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run."""
        return self._send("GET", f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The run's tasks with state, try_number, start_date, end_date, duration; in order of their start."""
        found = list(self._pages(f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances", "task_instances", {}))
        return sorted(found, key=lambda task: (task["start_date"] is None, task["start_date"] or "", task["task_id"]))

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int | None = None, map_index: int = -1
    ) -> list[str]:
        """The lines of a task's log, of its last try when none is named; empty when there is none yet."""
        path = f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances/{task_id}"
        if try_number is None:
            one = path if map_index < 0 else f"{path}/{map_index}"
            try_number = self._send("GET", one)["try_number"]
        if not try_number:
            return []
        answer = self._send(
            "GET", f"{path}/logs/{try_number}", query={"full_content": "true", "map_index": str(map_index)}
        )
        return [line for part in answer["content"] for line in _log_lines(part)]

    def clear(
        self,
        dag_id: str,
        run_id: str,
        task_ids: Iterable[str] | None = None,
        *,
        only_failed: bool = False,
        include_downstream: bool = True,
    ) -> int:
        """Run tasks of a run again (all when none are named) and what hangs on them; returns how many."""
        body: dict[str, Any] = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": only_failed,
            "only_running": False,
            "include_downstream": include_downstream,
            "reset_dag_runs": True,
        }
        if task_ids is not None:
            body["task_ids"] = list(task_ids)
        return len(self._send("POST", f"/dags/{dag_id}/clearTaskInstances", body)["task_instances"])

    def backfill(
        self, dag_id: str, first: date, last: date, *, reprocess: str = "completed", max_active_runs: int = 1
    ) -> int:
        """Run every business day from ``first`` to ``last``, both included; returns the backfill's id.

        ``reprocess`` says what happens to days that have run: ``none``, ``failed`` or ``completed`` (again).
        More than one active run at a time lets later layers take the days out of order.
        """
        body = {
            "dag_id": dag_id,
            "from_date": f"{first}T00:00:00Z",
            # The bounds are compared with the moment of the schedule's tick within the day.
            "to_date": f"{last}T23:59:59Z",
            "run_backwards": False,
            "reprocess_behavior": reprocess,
            "max_active_runs": max_active_runs,
        }
        return self._send("POST", "/backfills", body)["id"]

    # ---- DAGs ----

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start."""
        self._send("PATCH", f"/dags/{dag_id}", {"is_paused": False}, query={"update_mask": "is_paused"})

    def pause(self, dag_id: str) -> None:
        """Keep the DAG's new runs waiting."""
        self._send("PATCH", f"/dags/{dag_id}", {"is_paused": True}, query={"update_mask": "is_paused"})

    def wait_for_dags(self, dag_ids: Iterable[str], seconds: float = 90) -> None:
        """Wait until the DAG processor has brought in all of ``dag_ids``.

        Raises ``AirflowError`` at once with the traceback of a file that cannot be imported, or after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        wanted = set(dag_ids)
        while missing := wanted - {dag["dag_id"] for dag in self._pages("/dags", "dags", {})}:
            if broken := self.import_errors():
                raise AirflowError("\n".join(f"{name}: {trace}" for name, trace in broken.items()))
            if time.monotonic() > deadline:
                raise AirflowError(f"Airflow does not know {', '.join(sorted(missing))} after {seconds:.0f} seconds.")
            time.sleep(0.5)

    def import_errors(self) -> dict[str, str]:
        """DAG file -> why it cannot be imported."""
        return {e["filename"]: e["stack_trace"] for e in self._pages("/importErrors", "import_errors", {})}

    def set_pool(self, name: str, slots: int, description: str = "") -> None:
        """Make or change a pool."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        known = {pool["name"] for pool in self._pages("/pools", "pools", {})}
        if name in known:
            self._send("PATCH", f"/pools/{name}", body)
        else:
            self._send("POST", "/pools", body)

    # ---- transport ----

    def _pages(self, path: str, key: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._send("GET", path, query=query | {"limit": str(PAGE), "offset": str(offset)})
            yield from page[key]
            offset += PAGE
            if len(page[key]) < PAGE:
                return

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, query: dict[str, str] | None = None
    ) -> dict[str, Any]:
        response = self._retried(method, f"/api/v2{path}", body, query)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            response = self._retried(method, f"/api/v2{path}", body, query)
        if response.is_error:
            raise AirflowError(f"{method} {path}: {response.status_code} {_reason(response)}")
        return response.json() if response.content else {}

    def _log_in(self) -> None:
        login = {"username": self._user, "password": self._password or secret("airflow_admin")}
        response = self._retried("POST", "/auth/token", login, None)
        if response.is_error:
            raise AirflowError(f"Airflow does not let {self._user} in: {response.status_code} {_reason(response)}")
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def _retried(
        self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, str] | None
    ) -> httpx.Response:
        """Ride out a restart of the API server. A request that may have arrived is repeated only when it reads."""
        deadline = time.monotonic() + self._retry_seconds
        while True:
            try:
                response = self._http.request(method, path, json=body, params=query)
                if response.status_code < 502 or method != "GET" or time.monotonic() > deadline:
                    return response
            except httpx.TransportError as error:
                may_repeat = method == "GET" or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if not may_repeat or time.monotonic() > deadline:
                    raise AirflowError(f"Airflow does not answer at {self._http.base_url}: {error}") from error
            time.sleep(0.5)


def _quoted(run_id: str) -> str:
    return httpx.URL(path=f"/{run_id}").raw_path.decode()[1:]


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
    return detail if isinstance(detail, str) else json.dumps(detail)


def _log_lines(part: Any) -> list[str]:
    """Plain lines of one structured log record; Airflow's own group marks are left out."""
    if isinstance(part, str):
        return part.splitlines()
    event = str(part.get("event", ""))
    if event.startswith(("::group::", "::endgroup::")):
        return []
    lines = event.splitlines() or [""]
    for trace in part.get("error_detail") or []:
        lines += [f'  File "{f["filename"]}", line {f["lineno"]}, in {f["name"]}' for f in trace.get("frames", [])]
        lines.append(f"{trace.get('exc_type')}: {trace.get('exc_value')}")
    return lines
