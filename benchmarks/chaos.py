"""Kill -9 in the middle of a night, rerun, and compare every published row.

``python -m benchmarks.chaos --as-of D`` on a home whose night D is green already: for each victim (the
scheduler, the Spark task, Postgres) it starts the night again, kills the victim with SIGKILL while its task
runs, lets the night end as it will, reruns it if it did not end green, and compares a checksum over whole
rows of every ``bi`` table with the one before. Exit 1 when one differs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import psutil

from include.dates import parse_day
from include.services import supervisor
from include.settings import ROOT, settings
from include.warehouse.engine import connect

VICTIMS = {
    "airflow-scheduler": ("the scheduler while features are built", "spark_jobs.features"),
    "spark": ("the Spark task's Python and JVM", "spark_jobs.features"),
    "postgres": ("Postgres while dbt builds", "include.dbt build"),
}


def checksums() -> dict[str, tuple[int, str]]:
    """``{view: (rows, checksum)}`` over whole rows of every table that BI reads."""
    out = {}
    with connect("bi_reader") as conn:
        views = conn.execute("select viewname from pg_views where schemaname = 'bi' order by 1").fetchall()
        for (view,) in views:
            row = conn.execute(
                f"select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from bi.{view} t"
            ).fetchone()
            assert row is not None
            out[view] = row
    return out


def mine(needle: str) -> list[psutil.Process]:
    """Processes of this home whose command line holds ``needle``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EMPORIUM_HOME") == str(settings().home) and needle in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def strike(victim: str) -> str:
    """SIGKILL the victim; returns what was killed."""
    if victim == "spark":
        doomed = mine("spark_jobs.features")
        doomed += [child for process in doomed for child in process.children(recursive=True)]
    else:
        pid = supervisor.status()[victim]["pid"]
        doomed = [psutil.Process(pid)]
    for process in doomed:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    return ", ".join(str(process.pid) for process in doomed)


def night(arguments: list[str]) -> subprocess.Popen[str]:
    """Start ``./emporium run``, its output to ours."""
    return subprocess.Popen([str(ROOT / "emporium"), "run", *arguments], env=os.environ.copy(), text=True)


def main() -> None:
    """Run the kills and print one verdict a victim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--as-of", type=parse_day, required=True)
    parser.add_argument("--source", default=settings().source)
    parser.add_argument("--data")
    parser.add_argument("--victim", action="append", choices=list(VICTIMS))
    args = parser.parse_args()
    arguments = ["--as-of", str(args.as_of), "--source", args.source] + (["--data", args.data] if args.data else [])
    before = checksums()
    verdicts = []
    for victim in args.victim or list(VICTIMS):
        label, needle = VICTIMS[victim]
        print(f"=== kill -9 of {label}", flush=True)
        process = night(arguments)
        while not mine(needle):
            if process.poll() is not None:
                sys.exit(f"the night ended before {needle} ran")
            time.sleep(0.2)
        time.sleep(2)
        print(f"=== killed {victim}: pid {strike(victim)}", flush=True)
        first = process.wait()
        reruns = 0
        while process.returncode != 0 and reruns < 2:
            reruns += 1
            print(f"=== the night ended with {process.returncode}; rerun {reruns}", flush=True)
            process = night(arguments)
            process.wait()
        after = checksums()
        changed = [view for view in before if after.get(view) != before[view]]
        verdict = f"{victim}: first exit {first}, {reruns} reruns, final exit {process.returncode}, " + (
            f"CHANGED {changed}" if changed else f"all {len(before)} bi tables identical"
        )
        print(f"=== {verdict}", flush=True)
        verdicts.append((bool(changed) or process.returncode != 0, verdict))
    print("\n".join(verdict for _, verdict in verdicts))
    sys.exit(any(failed for failed, _ in verdicts))


if __name__ == "__main__":
    main()
