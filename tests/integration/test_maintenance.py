"""Lake care on real tables: few files, the same rows and verdicts, whoever wrote them and whatever runs beside."""

import json
import os
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from expectations.raw import main as gate_main
from include import lake, maintenance
from include.ingest import bronze
from include.ingest import sources as yamls
from include.ingest.__main__ import main as ingest_main
from include.ingest.sources import load_source
from include.ingest.tables import lock, prepare
from include.services import jars
from include.settings import ROOT, settings
from include.warehouse.engine import connect
from spark_jobs import stream
from spark_jobs.session import session
from tests import jvm

pytestmark = pytest.mark.integration

FIRST, LAST = date(2017, 1, 1), date(2018, 5, 31)
YAML = """
source: drops
type: stream
marketplace: olist
currency: BRL
connection: {folder: drops}
entities:
  orders:
    key: [order_id]
    columns:
      order_id: {required: true}
      customer: {pseudonym: olist, required: true}
      status: {}
      purchased_at: {type: timestamptz, required: true}
    cursor: purchased_at
"""


@pytest.fixture(scope="module")
def home(warehouse, tmp_path_factory):
    """A lake and the source ``drops`` of this module's own; nothing has arrived yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_LAKE", str(tmp_path_factory.mktemp("lake")))
        patch.setenv("EMPORIUM_JARS", os.environ.get("EMPORIUM_JARS", str(ROOT / ".emporium" / "jars")))
        patch.setattr(maintenance, "WAIT_SECONDS", 0)
        settings.cache_clear()
        folder = tmp_path_factory.mktemp("sources")
        (folder / "drops.yaml").write_text(YAML)
        patch.setattr(yamls, "FOLDER", folder)
        load_source.cache_clear()
        jars.fetch()
        jvm.end()
        prepare()
        yield warehouse
        if (running := SparkSession.getActiveSession()) is not None:
            running.stop()
    load_source.cache_clear()
    settings.cache_clear()
    with connect("loader") as conn:
        conn.execute("drop schema raw_drops cascade")
        for table in ("load_audit", "stream_file", "source_column"):
            conn.execute(f"delete from ops.{table} where source = 'drops'")
        conn.execute("delete from ops.quality_result where target = 'drops.orders'")


@pytest.fixture(scope="module")
def streamed(home, shared_data):
    """Olist's purchases as a drop an hour, quiet hours empty, streamed to bronze; yields the number of drops."""
    (path,) = (shared_data / "olist").glob("olist_orders_dataset.csv*")
    orders = pd.read_csv(path, dtype=str, keep_default_na=False)
    hours = pd.to_datetime(orders["order_purchase_timestamp"]).dt.floor("h")
    by_hour = dict(list(orders.groupby(hours)))
    wanted = pd.date_range(f"{FIRST}", f"{LAST} 23:00", freq="h")
    for hour in wanted:
        rows = by_hour.get(hour)
        lines = [
            json.dumps({"order_id": one[0], "customer": one[1], "status": one[2], "purchased_at": one[3]}) + "\n"
            for one in (rows.iloc[:, :4].itertuples(index=False) if rows is not None else ())
        ]
        drop = home / "drops" / str(hour.date()) / f"{hour.hour:02}.jsonl"
        drop.parent.mkdir(parents=True, exist_ok=True)
        drop.write_text("".join(lines))
    assert stream.main(["--source", "drops", "--from", str(FIRST), "--as-of", str(LAST)]) == 0
    return len(wanted)


def _all_rows():
    rows = bronze.read("drops", "orders", load_source("drops").entities["orders"], FIRST, LAST)
    return rows.sort_by([("partition_on", "ascending"), ("_file", "ascending"), ("_line", "ascending")])


def _care(*arguments):
    return maintenance.main(["--as-of", str(LAST), *arguments])


def _gate(day):
    return gate_main(["--source", "drops", "--as-of", str(day)])


def _load(day):
    return ingest_main(["load", "--source", "drops", "--as-of", str(day)])


def _version():
    return DeltaTable(bronze.uri("drops", "orders")).version()


def test_olists_12000_tiny_hourly_drops_end_as_tens_of_files_with_every_row_and_verdict(streamed, capsys):
    assert streamed >= 12_000
    table = DeltaTable(bronze.uri("drops", "orders"))
    n_before = len(table.file_uris())
    rows, batches = _all_rows(), bronze.batches("drops", "orders", FIRST, LAST)
    old = date(2017, 11, 24)
    assert _gate(old) == 0
    assert _care() == 0
    table = DeltaTable(bronze.uri("drops", "orders"))
    n_after = len(table.file_uris())
    assert n_before > 100
    assert n_after <= 17, "one a month"
    assert f"bronze/drops/orders: {n_before:,} -> {n_after} files" in capsys.readouterr().out
    assert _all_rows() == rows
    assert rows.num_rows == 80_121
    assert bronze.batches("drops", "orders", FIRST, LAST) == batches
    assert _load(old) == 0, "the verdict is about the day's content, not about its files"
    assert _gate(old) == 0


def test_a_second_run_finds_nothing_to_do(streamed, capsys):
    def log():
        """Names of the log's files, and when each was written."""
        folder = Path(bronze.uri("drops", "orders"), "_delta_log")
        return sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())

    assert _care() == 0
    before = log()
    capsys.readouterr()
    assert _care() == 0
    assert log() == before, "no commit and no checkpoint is written again"
    said = capsys.readouterr().out
    assert "bronze/drops/orders: 17 -> 17 files, " in said
    assert "freed" not in said.rsplit("\n", 2)[0]


def test_old_pieces_that_bronze_has_and_old_logs_go_and_others_stay(streamed, home):
    spool, logs = home / "streams" / "drops" / "spool" / "orders", home / "airflow" / "logs" / "dag_id=ingest"
    logs.mkdir(parents=True)
    long_ago = time.time() - 8 * 86_400
    for name, is_old in (("old.log", True), ("new.log", False)):
        (logs / name).write_text("text")
        if is_old:
            os.utime(logs / name, (long_ago, long_ago))
    old, new, unknown = (spool / str(day) for day in (FIRST + timedelta(days=6), LAST, LAST + timedelta(days=1)))
    unknown.mkdir()
    (unknown / "take-batch.jsonl").write_text("a line that bronze does not have")
    for folder in (old, unknown):
        for path in folder.glob("*.jsonl"):
            os.utime(path, (long_ago, long_ago))
    assert old.exists()
    rows = _all_rows()
    assert _care() == 0
    assert [old.exists(), new.exists(), unknown.exists()] == [False, True, True]
    assert [path.name for path in logs.iterdir()] == ["new.log"]
    (unknown / "take-batch.jsonl").unlink()
    # The stream runs on, over a day whose pieces are gone too.
    day = str(FIRST + timedelta(days=6))
    assert stream.main(["--source", "drops", "--as-of", day]) == 0
    assert _all_rows() == rows


def test_what_a_reader_may_still_want_is_kept_for_seven_days_unless_forced(streamed, capsys):
    assert _care() == 0
    with pytest.raises(SystemExit):
        _care("--keep-days", "6")
    assert "--force" in capsys.readouterr().err
    folder = Path(bronze.uri("drops", "orders"))
    n_kept = len(list(folder.rglob("*.parquet")))
    assert n_kept > 100, "files that OPTIMIZE replaced a moment ago"
    rows = _all_rows()
    replaced = set(folder.glob("partition_month=*/*.parquet")) - {
        Path(uri.removeprefix("file://")) for uri in DeltaTable(str(folder)).file_uris()
    }
    assert replaced
    assert _care("--keep-days", "0", "--force") == 0
    assert not any(path.exists() for path in replaced)
    assert _all_rows() == rows


def test_a_table_that_is_being_written_is_left_alone_and_said_so(streamed, capsys):
    source = load_source("drops")
    with connect("loader") as conn:
        lock(conn, source)
        assert _care() == 0
    said = capsys.readouterr().out
    assert "bronze/drops/orders: 17 -> 17 files" in said
    assert said.count("busy: it is being written, next time") == 2, "the table and its spool"


def test_spark_still_knows_what_it_has_streamed_after_compaction_checkpoint_and_a_cut_log(home):
    """A batch that the checkpoint of a killed run repeats is skipped by Delta's app transaction, which must survive."""
    spark, uri = session("test-maintenance"), lake.table_uri("silver", "spark_made")
    rows = spark.createDataFrame([(1, ["rule"], {"a": "b"})], "n int, rules array<string>, extra map<string,string>")

    def write(version):
        writer = rows.write.format("delta").mode("append").option("mergeSchema", "true")
        writer.option("txnAppId", "a stream").option("txnVersion", version).save(uri)

    for version in range(3):
        write(version)
    assert _care("--keep-days", "0", "--force") == 0
    assert len(DeltaTable(uri).file_uris()) == 1
    write(2)
    write(3)
    found = spark.read.format("delta").load(uri)
    assert [tuple(row) for row in found.collect()] == [(1, ["rule"], {"a": "b"})] * 4


def test_the_newest_features_are_left_to_spark_and_older_days_are_compacted_and_kept(home):
    uri = lake.table_uri("features", "some_view")
    for day in (LAST - timedelta(days=1), LAST):
        for n in range(3):
            rows = pa.table({"n": [n], "as_of": pa.array([day], pa.date32())})
            write_deltalake(uri, rows, mode="append", partition_by=["as_of"])
    assert _care() == 0
    files = Counter(pa.table(DeltaTable(uri).get_add_actions(flatten=True))["partition.as_of"].to_pylist())
    assert files == {LAST - timedelta(days=1): 1, LAST: 3}
    assert sorted(lake.read(uri)["n"].to_pylist()) == [0, 0, 1, 1, 2, 2]
