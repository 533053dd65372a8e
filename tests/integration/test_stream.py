"""Streams to bronze by real Structured Streaming: once, whenever it is killed, whatever arrives late."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrameWriter, SparkSession

from expectations.raw import gate
from include import lake
from include.ingest import bronze
from include.ingest.__main__ import main as ingest_main
from include.ingest.connectors import SourceError, connector
from include.ingest.connectors import stream as spooling
from include.ingest.connectors.stream import spool
from include.ingest.sources import Source, load_source
from include.services import jars
from include.settings import ROOT, settings
from include.warehouse.engine import connect
from spark_jobs import stream as job
from spark_jobs.session import session
from tests import jvm

pytestmark = pytest.mark.integration

DAY = date(2031, 7, 1)
NEXT = DAY + timedelta(days=1)


class Killed(BaseException):
    """Stands for the end of the process: nothing that the code does about errors runs."""


@pytest.fixture(scope="module")
def spark(warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPORIUM_LAKE", str(tmp_path_factory.mktemp("stream") / "lake"))
        patch.setenv("EMPORIUM_JARS", os.environ.get("EMPORIUM_JARS", str(ROOT / ".emporium" / "jars")))
        patch.setenv("PYTHONPATH", str(ROOT))
        settings.cache_clear()
        jars.fetch()
        assert ingest_main(["prepare"]) == 0
        jvm.end()
        made = session("test_stream", is_long=True)
        yield made
        made.stop()
    settings.cache_clear()


def _empty() -> None:
    """Nothing has arrived, nothing was ever taken."""
    for path in (settings().home / "demo" / "clicks", settings().home / "streams", Path(settings().lake_root)):
        shutil.rmtree(path, ignore_errors=True)
    with connect() as conn:
        conn.execute("delete from ops.stream_file")
        conn.execute("delete from ops.source_column where source = 'demo_clicks'")
        conn.execute("delete from ops.load_audit where source = 'demo_clicks'")
        conn.execute("delete from ops.quality_result where target like 'demo_clicks.%'")
        conn.execute("truncate raw_demo_clicks._landed")
        conn.execute("truncate quarantine.events")


@pytest.fixture
def clicks(spark: SparkSession) -> Iterator[Path]:
    """The folder in which clicks arrive; nothing was ever taken."""
    _empty()
    folder = settings().home / "demo" / "clicks"
    folder.mkdir(parents=True)
    yield folder
    _empty()


def _click(at: int, **more) -> str:
    return json.dumps(
        {
            "event_id": f"e{at}", "visitor_id": "v1", "customer_email": "ann@example.org", "event_type": "view",
            "product_id": str(at), "event_at": f"{DAY}T10:00:{at % 60:02}Z", "sent_at": None, "campaign": None,
        }
        | more
    )  # fmt: skip


def _arrive(folder: Path, name: str, *lines: str) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)


def _two_days(folder: Path) -> None:
    _arrive(folder, f"{DAY}.jsonl.gz", *(_click(at) for at in range(40)), '{"event_id": "bob@example.org', "")
    _arrive(folder, f"{DAY}b.jsonl", "", *(_click(at) for at in range(40, 60)), _click(60, event_type="stare"))
    _arrive(folder, f"{NEXT}.jsonl", *(_click(at, event_at=f"{NEXT}T00:00:00Z") for at in range(100, 120)))


def _source() -> Source:
    return load_source("demo_clicks")


def _stream(spark: SparkSession, first: date = DAY, last: date = NEXT, is_full_refresh: bool = False) -> job.Streamed:
    (made,) = job.stream(spark, _source(), first, last, is_full_refresh)
    return made


def _bronze() -> list[dict]:
    rows = lake.read(bronze.uri("demo_clicks", "events")).to_pylist()
    return sorted(rows, key=lambda row: (row["partition_on"], row["_file"], row["_line"]))


def _query(text: str) -> list[tuple]:
    with connect() as conn:
        return conn.execute(text).fetchall()


def _taken() -> list[tuple]:
    return _query("select file, n_lines, partition_on from ops.stream_file order by 1")


def test_every_line_lands_once_under_its_file_and_number_and_is_judged(spark, clicks):
    _two_days(clicks)
    brought = _stream(spark)
    assert (brought.n_rows, brought.n_broken) == (82, 1)
    rows = _bronze()
    assert [row["_line"] for row in rows] == [*range(1, 42), *range(2, 23), *range(1, 21)]
    assert {(row["_file"], row["partition_on"], row["partition_month"]) for row in rows} == {
        (f"demo/clicks/{DAY}.jsonl.gz", DAY, DAY),
        (f"demo/clicks/{DAY}b.jsonl", DAY, DAY),
        (f"demo/clicks/{NEXT}.jsonl", NEXT, DAY),
    }
    assert {row["_error"] for row in rows} == {None, "not a JSON object"}
    assert [row["_rules"] for row in rows if row["_rules"]] == [["event_type_is_known"]]
    assert "ann@example.org" not in str(rows)
    assert len({row["customer_email"] for row in rows if not row["_error"]}) == 1

    assert _stream(spark).n_rows == 82
    assert _bronze() == rows, "a second run brings nothing"

    assert gate(_source(), DAY, NEXT) == []
    found = _query("select file, line, rule, rules, payload from quarantine.events order by line")
    assert [one[:4] for one in found] == [
        (f"demo/clicks/{DAY}b.jsonl", 22, "event_type_is_known", ["event_type_is_known"]),
        (f"demo/clicks/{DAY}.jsonl.gz", 41, "line_parses", ["line_parses"]),
    ]
    assert json.loads(found[0][4])["event_id"] == "e60"
    assert found[1][4] == '{"event_id": "***@***'
    assert _query(
        """select as_of, rule, is_passed, n_checked, n_failed from ops.quality_result
           where target = 'demo_clicks.events' and (n_failed > 0 or rule like '%_share_%') order by 1, 2"""
    ) == [
        (DAY, "event_type_is_known", False, 62, 1),
        (DAY, "line_parses", False, 62, 1),
        (DAY, "quarantine_share_within_threshold", True, 62, 2),
        (NEXT, "quarantine_share_within_threshold", True, 20, 0),
    ]


def test_a_day_above_the_threshold_stops_and_names_the_rule(spark, clicks):
    _arrive(clicks, f"{DAY}.jsonl", *(_click(at) for at in range(9)), "[]")
    _stream(spark, last=DAY)
    (stop,) = gate(_source(), DAY, DAY)
    assert (stop.n_failed, stop.n_checked, stop.observed["rules"]) == (1, 10, {"line_parses": 1})


def _die(*_args, **_kwargs):
    raise Killed


def _spool_in_a_process_that_is_killed(owner: object, patched: str) -> None:
    """Runs the spool step in a child that SIGKILLs itself where it calls ``owner.patched``."""
    child = os.fork()
    if child == 0:
        setattr(owner, patched, lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGKILL))
        with connector(_source()) as reader, connect("loader") as conn:
            spool(reader, conn, DAY, NEXT)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def _command_killed_once_delta_has_rows() -> None:
    """Runs the command and SIGKILLs it, and its JVM, when Delta has committed and Spark's checkpoint hardly has."""
    arguments = ["--source", "demo_clicks", "--from", str(DAY), "--as-of", str(NEXT)]
    log = Path(bronze.uri("demo_clicks", "events")) / "_delta_log"
    # A group of its own, for the JVM ends with it.
    with subprocess.Popen(
        [sys.executable, "-m", "spark_jobs.stream", *arguments], cwd=ROOT, start_new_session=True
    ) as process:
        while process.poll() is None and not list(log.glob("*1.json")):
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)


STEPS = (
    "while pieces are written",
    "before the ledger",
    "after the ledger",
    "the command, once Delta has rows",
    "second batch written",
    "while days are recorded",
)

LANDED = "select entity, partition_on, n_rows, n_broken, batch from raw_demo_clicks._landed order by 1, 2"


@pytest.fixture(scope="module")
def undisturbed() -> list[tuple]:
    """Bronze and what landed after a run that nobody killed; filled by the first test that needs it."""
    return []


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_killed_is_healed_by_the_same_run(spark, clicks, monkeypatch, undisturbed, step):
    _two_days(clicks)
    delivered = {path.name: path.read_bytes() for path in clicks.iterdir()}
    # One piece a batch.
    monkeypatch.setattr(job, "TRIGGER_BYTES", 1)
    if not undisturbed:
        _stream(spark)
        undisturbed.append((_bronze(), _query(LANDED)))
        _empty()
        clicks.mkdir()
        _two_days(clicks)

    if step == "while pieces are written":
        _spool_in_a_process_that_is_killed(spooling._Writer, "end")
    elif step == "before the ledger":
        _spool_in_a_process_that_is_killed(spooling, "copy_table")
    elif step == "after the ledger":
        with connector(_source()) as reader, connect("loader") as conn:
            spool(reader, conn, DAY, NEXT)
    elif step == "the command, once Delta has rows":
        _command_killed_once_delta_has_rows()
    else:
        with monkeypatch.context() as patch:
            if step == "while days are recorded":
                patch.setattr(job, "copy_table", _die)
            else:
                saved, left = DataFrameWriter.save, [2]

                def save(writer, *args, **kwargs):
                    saved(writer, *args, **kwargs)
                    left[0] -= 1
                    if not left[0]:
                        raise RuntimeError("killed after Delta's commit and before Spark's")

                patch.setattr(DataFrameWriter, "save", save)
            with pytest.raises((Killed, StreamingQueryException)):
                _stream(spark)
    _stream(spark)
    assert {path.name: path.read_bytes() for path in clicks.iterdir()} == delivered
    assert len(_taken()) == 3
    assert (_bronze(), _query(LANDED)) == undisturbed[0]
    assert _query("select count(*) from quarantine.events") == [(1,)]
    left_over = [path for path in (settings().home / "streams" / "demo_clicks").iterdir() if path.name.startswith(".")]
    assert left_over == []


def test_a_full_refresh_brings_the_same_bronze_from_the_spool(spark, clicks):
    _two_days(clicks)
    _stream(spark)
    before = _bronze()
    shutil.rmtree(clicks)
    clicks.mkdir()
    shutil.rmtree(job.checkpoint("demo_clicks", "events"))
    with pytest.raises(RuntimeError, match="--full-refresh"):
        _stream(spark)
    _stream(spark, is_full_refresh=True)
    assert _bronze() == before
    spool_of_day = settings().home / "streams" / "demo_clicks" / "spool" / "events" / str(DAY)
    (piece,) = spool_of_day.glob("*.jsonl")
    lines = piece.read_bytes().splitlines(keepends=True)
    piece.write_bytes(b"".join(lines[1:]))
    with pytest.raises(RuntimeError, match=rf"of {DAY} 62 lines were taken, .* holds 61 and bronze 0"):
        _stream(spark, is_full_refresh=True)
    assert _bronze() == before


def test_a_full_refresh_leaves_days_that_maintenance_took_from_the_spool(spark, clicks):
    _two_days(clicks)
    _stream(spark)
    before = _bronze()
    shutil.rmtree(settings().home / "streams" / "demo_clicks" / "spool" / "events" / str(DAY))
    assert _stream(spark, is_full_refresh=True).n_rows == 82
    assert _bronze() == before
    DeltaTable(bronze.uri("demo_clicks", "events")).delete(f"partition_on = '{DAY}' and _line = 2")
    with pytest.raises(RuntimeError, match=rf"of {DAY} 62 lines were taken, .* holds 0 and bronze 60"):
        _stream(spark, is_full_refresh=True)


def test_a_folder_that_moves_takes_nothing_again(spark, clicks):
    _two_days(clicks)
    _stream(spark)
    before = _bronze()
    moved = clicks.with_name("moved")
    clicks.rename(moved)
    source = _source()
    elsewhere = source.model_copy(update={"connection": source.connection | {"folder": str(moved)}})
    try:
        (brought,) = job.stream(spark, elsewhere, DAY, NEXT)
    finally:
        shutil.rmtree(moved)
    assert brought.n_rows == 82
    assert _bronze() == before


def _close(day: date) -> None:
    with connect() as conn:
        conn.execute(
            "insert into ops.load_audit values ('t', 'demo_clicks', 'events', %s, 0, 0, 0, 0, '', now()) "
            "on conflict do nothing",
            (day,),
        )


def test_what_is_late_lands_in_the_next_day_and_a_closed_day_stays_as_it_is(spark, clicks):
    _arrive(clicks, f"{DAY}.jsonl", _click(1))
    _stream(spark, last=DAY)
    _close(DAY)
    before = _bronze()
    _arrive(clicks, f"{DAY}-late.jsonl", _click(2))
    _arrive(clicks, f"{DAY - timedelta(days=90)}.jsonl", _click(3))
    _arrive(clicks, f"{NEXT}.jsonl", _click(4, event_at=f"{NEXT}T05:00:00Z"))
    assert _stream(spark, last=DAY).n_rows == 1
    assert _bronze() == before, "a rerun of a closed day takes what it took"
    assert _stream(spark, NEXT, NEXT).n_rows == 3
    late = {row["event_id"]: (row["partition_on"], row["known_at"]) for row in _bronze()}
    start = datetime(2031, 7, 2, tzinfo=UTC)
    assert late == {
        "e1": (DAY, datetime(2031, 7, 1, 10, 0, 1, tzinfo=UTC)),
        "e2": (NEXT, start),
        "e3": (NEXT, start),
        "e4": (NEXT, start.replace(hour=5)),
    }


def test_a_cut_file_takes_nothing_and_a_whole_one_heals_it(spark, clicks):
    _two_days(clicks)
    path = clicks / f"{DAY}.jsonl.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(SourceError, match=rf"nothing was taken: demo/clicks/{DAY}.jsonl.gz is cut off"):
        _stream(spark)
    assert _taken() == []
    path.write_bytes(whole)
    assert _stream(spark).n_rows == 82


def test_a_name_with_another_content_is_a_file_of_its_own(spark, clicks):
    _arrive(clicks, f"{DAY}.jsonl", _click(1))
    _stream(spark, last=DAY)
    (clicks / f"{DAY}.jsonl").touch()
    assert _stream(spark, last=DAY).n_rows == 1, "touched is not changed"
    _arrive(clicks, f"{DAY}.jsonl", _click(2))
    assert _stream(spark, last=DAY).n_rows == 2
    assert [file for file, *_ in _taken()] == [f"{DAY}.jsonl", f"{DAY}.jsonl#2"]


def test_a_column_that_appears_later_stops_at_the_gate(spark, clicks):
    _arrive(clicks, f"{DAY}.jsonl", _click(1, session="s"))
    _stream(spark, last=DAY)
    assert gate(_source(), DAY, DAY) == [], "what was there from the first day on is known"
    _arrive(clicks, f"{NEXT}.jsonl", _click(2, session="s", mood="good"))
    _stream(spark, NEXT, NEXT)
    (stop,) = gate(_source(), NEXT, NEXT)
    assert stop.observed["columns"] == ["mood"]
    # An old day that comes after it knows nothing of a column that only it has.
    before = DAY - timedelta(days=1)
    _arrive(clicks, f"{before}.jsonl", _click(3, session="s", tempo="quick"))
    _stream(spark, before, before)
    assert gate(_source(), before, before) == []


def test_six_thousand_small_files_are_packed_by_day_in_seconds(spark, clicks):
    n_days = 250
    days = [DAY + timedelta(days=at) for at in range(n_days)]
    for day in days:
        (clicks / str(day)).mkdir()
        for hour in range(24):
            (clicks / str(day) / f"{hour:02}.jsonl").write_text(_click(hour) + "\n")
    started = time.process_time()
    with connector(_source()) as reader, connect("loader") as conn:
        taken = spool(reader, conn, DAY, days[-1])
    assert time.process_time() - started < 10
    assert (taken.n_files, taken.n_lines) == (24 * n_days, 24 * n_days)
    pieces = list((settings().home / "streams" / "demo_clicks" / "spool").glob("*/*/*.jsonl"))
    assert len(pieces) == n_days
    assert pa.table({"n": [len(path.read_bytes().splitlines()) for path in pieces]})["n"].unique().to_pylist() == [24]
