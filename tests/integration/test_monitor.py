"""The monitor finds what is late, odd or off; the audit finds what does not add up."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from include import ops
from include.audit import audit
from include.monitor import check_night
from include.warehouse import publish
from include.warehouse.engine import connect

pytestmark = pytest.mark.integration
DAY = date(2019, 6, 3)


@pytest.fixture
def loads(warehouse):
    """Nine Mondays of one entity, the last one ten times the others; removed afterwards."""
    counts = [
        ops.LoadCount("probe", "orders", DAY - timedelta(weeks=weeks), n, n, 0, 0, "0")
        for weeks, n in [(0, 1000), *((w, 100 + w) for w in range(1, 9))]
    ]
    with connect("loader") as conn:
        ops.record_loads(conn, counts)
        conn.execute("create schema if not exists raw_probe")
        conn.execute("create table raw_probe.orders (partition_on date)")
        conn.execute("insert into raw_probe.orders select %s from generate_series(1, 1000)", (DAY,))
    yield
    with connect("loader") as conn:
        conn.execute("delete from ops.load_audit where source = 'probe'")
        conn.execute("drop schema raw_probe cascade")


def findings(as_of: date) -> dict[tuple[str, str], bool]:
    return {(one.check_name, one.subject): one.is_ok for one in check_night(as_of)}


def test_an_odd_volume_and_a_table_that_was_not_published_are_found(loads):
    found = findings(DAY)
    assert found["volume_z", "probe.orders"] is False
    assert found["days_behind", "predictions.churn_score"] is False
    with connect() as conn:
        rows = conn.execute("select count(*) from ops.monitor_result where as_of = %s", (DAY,)).fetchone()
    assert rows == (len(found),)
    assert findings(DAY) == found, "a rerun replaces the day's results"


def test_a_usual_volume_is_fine(loads):
    assert findings(DAY - timedelta(weeks=1))["volume_z", "probe.orders"] is True


def test_a_published_day_is_fresh_and_a_shifted_score_is_told(warehouse):
    for day, probability in ((DAY, 0.2), (DAY + timedelta(days=1), 0.6)):
        rows = pa.table(
            {
                "as_of": [day] * 10,
                "customer_id": [f"c{i}" for i in range(10)],
                "churn_probability": [probability] * 10,
                "decile": pa.array(range(1, 11), pa.int16()),
                **{f"reason_{n}": ["because"] * 10 for n in (1, 2, 3)},
                "model_name": ["m"] * 10,
                "model_version": ["1"] * 10,
            }
        )
        token = ops.begin("churn_score", day)
        publish.stage("churn_score", day, token, rows)
        publish.mark_audited(token, ok=True)
        publish.publish("churn_score", day, token)
    found = findings(DAY + timedelta(days=1))
    assert found["days_behind", "predictions.churn_score"] is True
    assert found["score_mean_shift", "churn_score"] is False


def test_the_audit_tells_a_lost_row(loads):
    def line():
        return next(one for one in audit(DAY) if one.subject == "probe.orders")

    assert line().is_ok
    with connect("loader") as conn:
        conn.execute("delete from raw_probe.orders where ctid in (select ctid from raw_probe.orders limit 1)")
    assert not line().is_ok
    assert "there are 999" in line().detail


def test_the_audit_of_a_day_without_loads_fails(warehouse):
    assert any(not one.is_ok and "nothing was loaded" in one.detail for one in audit(date(1999, 1, 1)))
