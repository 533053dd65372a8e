"""Two Olist nights through the real Airflow, a backfilled rerun, a bad batch, and an interrupt.

One story told in order: every test builds on the one before it.
"""

import io
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pandas as pd
import pytest
import zstandard

from tests.e2e.conftest import ROOT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

FIRST, SECOND, BAD = "2018-04-30", "2018-05-01", "2018-05-02"
PREDICTIONS = ("demand_forecast", "demand_forecast_category", "churn_score")
MARTS = ("fact_order", "fact_order_item", "fact_payment", "fact_delivery", "dim_customer", "dim_product", "dim_vendor")


def read(folder: Path, name: str) -> pd.DataFrame:
    raw = zstandard.ZstdDecompressor().stream_reader((folder / f"olist_{name}_dataset.csv.zst").open("rb"))
    return pd.read_csv(io.BufferedReader(raw), dtype=str, keep_default_na=False)


@pytest.fixture(scope="session")
def olist(shared_data) -> Path:
    return shared_data / "olist"


def checksums(stack: Stack, tables: tuple[str, ...], where: str = "true") -> dict[str, tuple]:
    """Count and checksum over whole rows, ``published_at`` included."""
    out = {}
    for table in tables:
        [out[table]] = stack.query(
            "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text "
            f"from bi.{table} t where {where}"
        )
    return out


def test_bulk_load_and_first_night_are_green(stack, olist):
    done = stack.emporium("run", "--source", "olist", "--data", str(olist), "--as-of", FIRST)
    assert "What landed as of 2018-04-30" in done.stdout
    for table in PREDICTIONS:
        [(days, rows)] = stack.query(f"select array_agg(distinct as_of::text), count(*) from bi.{table}_latest")
        assert days == [FIRST], table
        assert rows > 0, table


def test_second_night_lands_and_totals_reconcile_with_the_files(stack, olist):
    stack.emporium("run", "--source", "olist", "--data", str(olist), "--as-of", SECOND)
    orders, items, payments = read(olist, "orders"), read(olist, "order_items"), read(olist, "order_payments")
    end = "2018-05-02"
    known = orders[orders.order_purchase_timestamp < end]
    ids = set(known.order_id)
    approved = known.order_approved_at.where(
        known.order_approved_at > known.order_purchase_timestamp, known.order_purchase_timestamp
    )
    final = known.order_status.isin(["canceled", "unavailable"]) & ((known.order_approved_at == "") | (approved < end))

    def seen(column: str) -> pd.Series:
        return (known[column] != "") & (known[column] < end)

    status = pd.Series("created", index=known.index)
    status[seen("order_approved_at")] = "approved"
    status[seen("order_delivered_carrier_date")] = "shipped"
    status[seen("order_delivered_customer_date")] = "delivered"
    status[final] = known.order_status[final]
    assert dict(stack.query("select status, count(*) from bi.fact_order where marketplace = 'olist' group by 1")) == (
        status.value_counts().to_dict()
    )
    mine = items[items.order_id.isin(ids)]
    [(n, price, freight)] = stack.query(
        "select count(*), sum(item_amount)::text, sum(freight_amount)::text from bi.fact_order_item "
        "where marketplace = 'olist'"
    )
    assert n == len(mine)
    assert float(price) == pytest.approx(mine.price.astype(float).sum(), abs=0.005)
    assert float(freight) == pytest.approx(mine.freight_value.astype(float).sum(), abs=0.005)
    paid = payments[payments.order_id.isin(ids)].payment_value.astype(float).sum()
    [(total,)] = stack.query("select sum(payment_amount) from bi.fact_payment where marketplace = 'olist'")
    assert float(total) == pytest.approx(paid, abs=0.005)
    [(n_delivered, latest)] = stack.query(
        "select count(delivered_at), max(delivered_at)::date::text from bi.fact_delivery where marketplace = 'olist'"
    )
    assert n_delivered == seen("order_delivered_customer_date").sum()
    assert latest <= SECOND


def test_every_row_is_counted_and_the_audit_holds(stack):
    rows = stack.query(
        "select count(*), bool_and(n_in = n_loaded + n_duplicate + n_quarantined), sum(n_in) from ops.load_audit",
        "owner",
    )
    assert rows[0][1] is True
    assert rows[0][2] > 300_000
    for day in (FIRST, SECOND):
        assert "controls hold" in stack.emporium("audit", "--as-of", day).stdout


def test_forecast_shape_and_reasons(stack):
    [(rows, days, ordered)] = stack.query(
        "select count(*), count(distinct forecast_on), bool_and(p10 <= p50 and p50 <= p90 and p10 >= 0) "
        "from bi.demand_forecast_latest"
    )
    assert days == 28
    assert rows % 28 == 0
    assert ordered is True
    [(n, n_reasons)] = stack.query("select count(*), count(reason_1) from bi.churn_score_latest")
    assert n == n_reasons


def test_backfill_of_the_first_night_from_rest_leaves_the_same_rows(stack):
    before = checksums(stack, PREDICTIONS, f"as_of = '{FIRST}'") | checksums(stack, MARTS)
    later = checksums(stack, PREDICTIONS, f"as_of = '{SECOND}'")
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.env['EMPORIUM_AIRFLOW_PORT']}", timeout=30) as client:
        password = (stack.home / "secrets" / "airflow_admin").read_text().strip()
        token = client.post("/auth/token", json={"username": "admin", "password": password}).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"

        def runs(dag_id: str) -> list[dict]:
            found = client.get(f"/api/v2/dags/{dag_id}/dagRuns", params={"partition_key_pattern": FIRST, "limit": 100})
            return found.raise_for_status().json()["dag_runs"]

        known = {run["dag_run_id"] for run in runs("monitor")}
        body = {
            "dag_id": "ingest",
            "from_date": f"{FIRST}T00:00:00Z",
            "to_date": f"{FIRST}T00:00:00Z",
            "reprocess_behavior": "completed",
            "max_active_runs": 1,
        }
        answer = client.post("/api/v2/backfills", json=body)
        assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + 900
        while True:
            fresh = [run for run in runs("monitor") if run["dag_run_id"] not in known]
            if fresh and fresh[0]["state"] in ("success", "failed"):
                break
            failed = [
                run
                for dag in ("ingest", "warehouse", "features", "train", "score")
                for run in runs(dag)
                if run["state"] == "failed"
            ]
            assert not failed, json.dumps(failed, indent=1)
            assert time.monotonic() < deadline, "the backfilled night did not end"
            time.sleep(2)
        assert fresh[0]["state"] == "success"
    assert checksums(stack, PREDICTIONS, f"as_of = '{FIRST}'") | checksums(stack, MARTS) == before
    assert checksums(stack, PREDICTIONS, f"as_of = '{SECOND}'") == later
    assert stack.query("select distinct as_of::text from bi.churn_score_latest") == [(SECOND,)]


def test_bad_batch_stops_before_publish_and_the_old_rows_stay(stack, olist, tmp_path):
    before = checksums(stack, PREDICTIONS + MARTS)
    folder = tmp_path / "olist"
    folder.mkdir()
    for path in olist.glob("*.csv.zst"):
        (folder / path.name).symlink_to(path)
    orders, items = read(olist, "orders"), read(olist, "order_items")
    of_day = set(orders[orders.order_purchase_timestamp.str.startswith(BAD)].order_id)
    rows = items.index[items.order_id.isin(of_day)]
    items.loc[rows[: len(rows) // 5], "price"] = "not a number"
    (folder / "olist_order_items_dataset.csv.zst").unlink()
    packed = zstandard.compress(items.to_csv(index=False).encode())
    (folder / "olist_order_items_dataset.csv.zst").write_bytes(packed)
    done = stack.emporium("run", "--source", "olist", "--data", str(folder), "--as-of", BAD, check=False)
    assert done.returncode == 1
    assert "gate_raw" in done.stderr
    assert "order_items" in done.stderr
    assert checksums(stack, PREDICTIONS + MARTS) == before
    assert stack.query(f"select count(*) from raw_olist.order_items where partition_on = '{BAD}'", "owner") == [(0,)]
    held = stack.query(f"select distinct rule from quarantine.order_items where partition_on = '{BAD}'", "owner")
    assert held, "the broken rows are kept with their rule"
    failing = stack.emporium("audit", "--as-of", BAD, check=False)
    assert failing.returncode == 1


def test_the_mended_batch_lands(stack, olist):
    stack.emporium("run", "--source", "olist", "--data", str(olist), "--as-of", BAD)
    [(n,)] = stack.query(f"select count(*) from raw_olist.order_items where partition_on = '{BAD}'", "owner")
    assert n > 0
    stack.emporium("audit", "--as-of", BAD)


def test_rollback_and_status(stack):
    stack.emporium("rollback", "predictions.churn_score", "--to", SECOND)
    assert stack.query("select distinct as_of::text from bi.churn_score_latest") == [(SECOND,)]
    state = json.loads(stack.emporium("status", "--json").stdout)
    assert all(service["state"] == "RUNNING" for service in state["services"].values()), state["services"]
    assert state["nights"]["score"][0]["state"] == "success"


def test_secrets_are_private_and_in_no_log(stack):
    names = list((stack.home / "secrets").iterdir())
    assert names
    secrets = []
    for path in names:
        assert path.stat().st_mode & 0o077 == 0, path.name
        secrets.append(path.read_text().strip())
    for log in [*stack.home.glob("logs/**/*.log*"), *stack.home.glob("airflow/logs/**/*.log*")]:
        text = log.read_text(errors="replace")
        assert not [name.name for name, value in zip(names, secrets, strict=True) if value in text], log


def test_interrupt_leaves_no_process(stack, olist):
    process = subprocess.Popen(
        [str(ROOT / "emporium"), "run", "--source", "olist", "--data", str(olist), "--as-of", "2018-05-03"],
        env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    assert process.stdout is not None
    for line in process.stdout:
        if "ingest" in line and "running" in line:
            break
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert stack.processes() == []
