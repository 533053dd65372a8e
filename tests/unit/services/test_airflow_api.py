"""The REST client, against a transport that plays Airflow."""

import json
from datetime import date

import httpx
import pytest

from include.services import airflow_api
from include.services.airflow_api import Airflow, AirflowError


@pytest.fixture
def airflow(home, monkeypatch):
    """A client whose requests go to ``answer(request)``; it lists the requests as ``seen``."""
    monkeypatch.setattr(airflow_api, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(airflow_api.time, "sleep", lambda _: None)

    def make(answer) -> tuple[Airflow, list[httpx.Request]]:
        seen: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            if request.url.path == "/auth/token":
                return httpx.Response(201, json={"access_token": "token"})
            if request.headers.get("Authorization") != "Bearer token":
                return httpx.Response(401, json={"detail": "log in"})
            return answer(request)

        client = Airflow()
        client._http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(handle))
        return client, seen

    return make


def test_trigger_logs_in_and_sends_the_key_without_a_logical_date(airflow):
    client, seen = airflow(lambda request: httpx.Response(200, json={"dag_run_id": "manual__1"}))
    assert client.trigger("ingest", "2025-12-31", {"source": "demo"}) == "manual__1"
    assert json.loads(seen[-1].content) == {
        "logical_date": None, "partition_key": "2025-12-31", "conf": {"source": "demo"},
    }  # fmt: skip


def test_runs_of_a_key_never_hold_another_keys(airflow):
    rows = [{"dag_run_id": str(n), "partition_key": key} for n, key in enumerate(["2025-12-31", "2026-01-01", None])]
    client, seen = airflow(lambda request: httpx.Response(200, json={"dag_runs": rows, "total_entries": 3}))
    assert [run["dag_run_id"] for run in client.runs("ingest", "2026-01-01")] == ["1"]
    assert seen[-1].url.params["partition_key_pattern"] == "2026-01-01"
    assert len(client.runs("ingest")) == 3


def test_every_page_is_read(airflow):
    def answer(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        rows = [{"dag_run_id": str(n), "partition_key": None} for n in range(offset, min(offset + 100, 250))]
        return httpx.Response(200, json={"dag_runs": rows})

    client, _ = airflow(answer)
    assert len(client.runs("ingest")) == 250


def test_refusal_carries_the_reason(airflow):
    client, _ = airflow(lambda request: httpx.Response(400, json={"detail": "Partition key 'x' does not match"}))
    with pytest.raises(AirflowError, match="does not match"):
        client.trigger("ingest", "x")


def test_reading_rides_out_a_restart_and_writing_is_not_sent_twice(airflow):
    failures = [httpx.ReadError("gone")]

    def answer(request: httpx.Request) -> httpx.Response:
        if failures:
            raise failures.pop()
        return httpx.Response(200, json={"dag_runs": [], "dag_run_id": "1"})

    client, _ = airflow(answer)
    assert client.runs("ingest") == []
    failures.append(httpx.ReadError("gone"))
    with pytest.raises(AirflowError, match="does not answer"):
        client.trigger("ingest", "2026-01-01")
    failures.append(httpx.ConnectError("refused"))
    assert client.trigger("ingest", "2026-01-01") == "1"


def test_backfill_covers_the_whole_last_day(airflow):
    client, seen = airflow(lambda request: httpx.Response(200, json={"id": 7}))
    assert client.backfill("ingest", date(2026, 1, 1), date(2026, 1, 2)) == 7
    body = json.loads(seen[-1].content)
    assert (body["from_date"], body["to_date"]) == ("2026-01-01T00:00:00Z", "2026-01-02T23:59:59Z")
    assert body["max_active_runs"] == 1


def test_log_is_plain_lines_with_the_error_at_its_end():
    part = {
        "event": "Task failed",
        "error_detail": [
            {
                "exc_type": "ValueError",
                "exc_value": "no rows",
                "frames": [{"filename": "a.py", "lineno": 3, "name": "f"}],
            }
        ],
    }
    assert airflow_api._log_lines(part) == ["Task failed", '  File "a.py", line 3, in f', "ValueError: no rows"]
    assert airflow_api._log_lines({"event": "::group::Pre Execute"}) == []
