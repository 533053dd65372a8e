"""Feature views in Delta: ``python -m spark_jobs.features user_behavior demand_history --as-of YYYY-MM-DD``.

All requested views are built in one Spark session. A rerun replaces the same ``as_of`` partitions with the
same rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date

import pyarrow as pa
from deltalake import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from include import lake
from include.dates import month_firsts, parse_day
from include.settings import settings
from spark_jobs.demand_history import demand_history
from spark_jobs.session import session
from spark_jobs.sessions import known_sessions
from spark_jobs.user_behavior import user_behavior
from spark_jobs.vendor_performance import vendor_performance
from spark_jobs.versions import read_core, retried, spark_uri


def cutoffs_of(as_of: date) -> list[date]:
    """The cutoffs that ``user_behavior`` covers: the training cutoffs and ``as_of`` itself, oldest first."""
    return sorted({*month_firsts(as_of, settings().training_cutoffs), as_of})


def _user_behavior(spark: SparkSession, as_of: date) -> tuple[DataFrame, list[date]]:
    cutoffs = cutoffs_of(as_of)
    frames = (read_core(spark, table, as_of) for table in ("orders", "order_items", "products"))
    return user_behavior(*frames, known_sessions(spark, cutoffs), cutoffs=cutoffs), cutoffs


def _vendor_performance(spark: SparkSession, as_of: date) -> tuple[DataFrame, list[date]]:
    frames = (read_core(spark, table, as_of) for table in ("orders", "order_items"))
    return vendor_performance(*frames, cutoffs=[as_of]), [as_of]


def _demand_history(spark: SparkSession, as_of: date) -> tuple[DataFrame, list[date]]:
    frames = (read_core(spark, table, as_of) for table in ("orders", "order_items", "products"))
    return demand_history(*frames, as_of=as_of, history_days=settings().feature_history_days), [as_of]


VIEWS: dict[str, Callable[[SparkSession, date], tuple[DataFrame, list[date]]]] = {
    "user_behavior": _user_behavior,
    "vendor_performance": _vendor_performance,
    "demand_history": _demand_history,
}
"""View name -> its rows and the ``as_of`` partitions that they are all of."""


def write(rows: DataFrame, view: str, as_ofs: Sequence[date]) -> int:
    """Replace the partitions ``as_ofs`` of ``lake/features/<view>`` in one commit, one file each; rows written."""
    uri = spark_uri(lake.table_uri("features", view))
    listed = ", ".join(f"'{as_of.isoformat()}'" for as_of in as_ofs)
    writer = (
        rows.repartition("as_of")
        .write.format("delta")
        .mode("overwrite")
        .partitionBy("as_of")
        .option("replaceWhere", f"as_of in ({listed})")
        .option("mergeSchema", "true")
    )
    retried(lambda: writer.save(uri))
    return _n_rows(lake.table_uri("features", view), as_ofs)


def _n_rows(uri: str, as_ofs: Sequence[date]) -> int:
    files = pa.table(DeltaTable(uri).get_add_actions(flatten=True))
    rows = zip(files["partition.as_of"].to_pylist(), files["num_records"].to_pylist(), strict=True)
    return sum(n or 0 for as_of, n in rows if as_of in set(as_ofs))


def build(spark: SparkSession, view: str, as_of: date) -> int:
    """Build one view as of a day and write it; rows written."""
    rows, as_ofs = VIEWS[view](spark, as_of)
    return write(rows, view, as_ofs)


def _build_and_say(spark: SparkSession, view: str, as_of: date) -> str:
    began = time.monotonic()
    n_rows = build(spark, view, as_of)
    return f"lake/features/{view} as of {as_of}: {n_rows} rows in {time.monotonic() - began:.1f} s"


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when every view is written, 1 with the reason on stderr when one is not."""
    parser = argparse.ArgumentParser(prog="python -m spark_jobs.features", description=__doc__.split("\n")[0])
    parser.add_argument("views", nargs="+", choices=sorted(VIEWS), metavar="view", help=", ".join(VIEWS))
    parser.add_argument("--as-of", type=parse_day, required=True, help="business day, YYYY-MM-DD")
    args = parser.parse_args(argv)
    started = time.monotonic()
    try:
        spark = session("emporium-features")
        print(f"spark: {settings().spark_master} in {time.monotonic() - started:.1f} s", flush=True)
        # Side by side: what one view plans and commits on one core, another uses to compute on the rest.
        with ThreadPoolExecutor(len(args.views)) as pool:
            for line in as_completed(
                pool.submit(_build_and_say, spark, view, args.as_of) for view in dict.fromkeys(args.views)
            ):
                print(line.result(), flush=True)
        spark.stop()
    except (RuntimeError, PySparkException) as error:
        # Spark appends its query plan, hundreds of lines.
        print(f"features: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
