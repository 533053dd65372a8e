"""The Spark session of every job: local by default, a cluster by ``EMPORIUM_SPARK_MASTER`` alone."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession

from include.settings import settings

_LOOPBACK = re.compile(r"^local|//(127\.|localhost)")

QUERY_CONF = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # A JSON object may say a name twice; to stop there would stop a stream for good.
    "spark.sql.mapKeyDedupPolicy": "LAST_WIN",
    "spark.sql.requireAllClusterKeysForCoPartition": "false",
    "spark.sql.maxConcurrentOutputFileWriters": "32",
    # Spark's own default is a number of twelve bytes, which takes longer to write and to read.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # To look for the first of each group beforehand is one more pass, and nearly every group has one row.
    "spark.sql.optimizer.windowGroupLimitThreshold": "-1",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "0",
}
"""What results depend on, and what makes small Delta logs cheap; set in any session, Connect included.

Feature tables are read by partition: statistics of columns would cost time and keep pseudonyms in the log."""


def use_this_python() -> None:
    """Let local Python workers be this interpreter: Spark's default, ``python3`` on PATH, may be another version."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def session(app: str, *, is_long: bool = False) -> SparkSession:
    """A session with Delta; ``is_long`` for work that repays good compilation.

    Raises ``RuntimeError`` with one sentence when the jars or Java are missing. ``local[n]`` runs in a JVM of this
    process, which dies with it (it reads end-of-file on its stdin); ``spark://`` and ``k8s://`` ship the jars to the
    executors; ``sc://`` uses the server's own.
    """
    cfg = settings()
    if cfg.spark_master.startswith("local"):
        use_this_python()
    if cfg.spark_master.startswith("sc://"):
        spark = SparkSession.builder.remote(cfg.spark_master).appName(app).getOrCreate()
        for key, value in QUERY_CONF.items():
            spark.conf.set(key, value)
        return spark

    # Before the JVM starts: Java's own default zone is read once.
    os.environ["TZ"] = "UTC"
    time.tzset()
    # For the JVM that starts now and its workers. By default glibc keeps what each of many threads freed, and that grew
    # with the events. Sessions take a tenth more CPU so, and the same memory for 16 GB of events as for one.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    builder = SparkSession.builder.master(cfg.spark_master).appName(app)
    for key, value in (QUERY_CONF | _engine_conf(cfg.spark_master, is_long)).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def jars() -> list[Path]:
    """The jars that Spark lacks, in a fixed order; ``RuntimeError`` when Delta's are not there."""
    folder = settings().jars_dir
    found = sorted(folder.glob("*.jar"))
    if not any(path.name.startswith("delta-spark") for path in found):
        raise RuntimeError(f"Delta's jars are not in {folder}: run `make setup`, or set EMPORIUM_JARS.")
    return found


def _engine_conf(master: str, is_long: bool = False) -> dict[str, str]:
    cfg = settings()
    scratch = cfg.home / "spark"
    (scratch / "tmp").mkdir(parents=True, exist_ok=True)
    log4j = Path(__file__).with_name("log4j2.properties").as_uri()
    java = (
        "-XX:+UseSerialGC",
        "-Duser.timezone=UTC",
        f"-Djava.io.tmpdir={scratch / 'tmp'}",
        f"-Dderby.system.home={scratch}",
        f"-Dlog4j2.configurationFile={log4j}",
        # By default each thread keeps, outside the heap, the largest buffer that it ever read or wrote a file with:
        # 157 MB in the third chunk of five million events, and growing; so it is 13 MB.
        "-Djdk.nio.maxCachedBufferSize=1048576",
        # What is freed outside the heap goes back to the system, which was 0.1 GB. Java before 17.0.9 cannot do that;
        # Spark has it pass over options that it does not know.
        "-XX:TrimNativeHeapInterval=10000",
    )
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.local.dir": str(scratch / "tmp"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": cfg.spark_driver_memory,
    } | _s3_conf()
    paths = [str(path) for path in jars()]
    if master.startswith("local"):
        # C1 only: on 90k orders and 13 cutoffs user_behavior took 24 s, with C2 35 s. Its default code cache fills up.
        # To read a gigabyte of events took 43 CPU seconds so, with C2 15.
        quick = () if is_long else ("-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=192m")
        conf["spark.driver.extraJavaOptions"] = " ".join((*java, *quick))
        conf["spark.driver.extraClassPath"] = os.pathsep.join(paths)
        conf["spark.sql.shuffle.partitions"] = "4"
        conf["spark.default.parallelism"] = "4"
    else:
        conf["spark.driver.extraJavaOptions"] = " ".join(java)
        conf["spark.jars"] = ",".join(paths)
    if _LOOPBACK.search(master):
        conf["spark.driver.host"] = conf["spark.driver.bindAddress"] = "127.0.0.1"
    return conf


def _s3_conf() -> dict[str, str]:
    """The AWS variables that delta-rs reads, under Hadoop's names."""
    names = {
        "AWS_ACCESS_KEY_ID": "access.key",
        "AWS_SECRET_ACCESS_KEY": "secret.key",
        "AWS_ENDPOINT_URL": "endpoint",
        "AWS_REGION": "endpoint.region",
    }
    if "://" not in settings().lake_root:
        return {}
    conf = {f"spark.hadoop.fs.s3a.{key}": os.environ[name] for name, key in names.items() if name in os.environ}
    if "AWS_ENDPOINT_URL" in os.environ:
        conf["spark.hadoop.fs.s3a.path.style.access"] = "true"
    return conf
