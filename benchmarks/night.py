"""How long a night takes and what everything together weighs: ``python -m benchmarks.night --nights 2``.

Runs ``./emporium run`` on a home of its own (a fresh one unless EMPORIUM_HOME is set), samples the memory of
every process of that home (proportional set size, so shared pages count once), and prints per night the wall
seconds, the seconds that tasks ran, and their ratio: the floor is the same commands with no orchestration.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from include.settings import ROOT


class MemorySampler(threading.Thread):
    """Peak and newest memory, in MB, of every process that carries the home in its environment or command line."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self.home, self.peak, self.newest, self.stopped = str(home), 0.0, 0.0, threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.5):
            self.newest = self.sample()
            self.peak = max(self.peak, self.newest)

    def sample(self) -> float:
        total = 0
        for process in psutil.process_iter():
            try:
                marked = process.environ().get("EMPORIUM_HOME") == self.home
                if process.pid == os.getpid() or not (marked or self.home in " ".join(process.cmdline())):
                    # Postgres backends retitle themselves: they are known by their parent.
                    parent = process.parent()
                    if parent is None or self.home not in " ".join(parent.cmdline()) or "postgres" not in parent.name():
                        continue
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return total / 1e6


def task_seconds(env: dict[str, str], as_of: str) -> dict[str, float]:
    """Seconds that the tasks of each layer ran, from Airflow's own record of the newest run of the day."""
    code = (
        "import json, sys; from include.night import LAYERS; from include.services.airflow_api import Airflow\n"
        "api = Airflow(); out = {}\n"
        "for dag in LAYERS:\n"
        "    run = api.runs(dag, sys.argv[1])[-1]\n"
        "    tasks = api.task_instances(dag, run['dag_run_id'])\n"
        "    out[dag] = sum(task['duration'] or 0 for task in tasks)\n"
        "print(json.dumps(out))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, as_of], env=env, cwd=ROOT, text=True, capture_output=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the nights and print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=2)
    parser.add_argument("--source", default="demo")
    parser.add_argument("--data")
    parser.add_argument("--as-of", help="first night; needed for a dump")
    parser.add_argument("--idle-seconds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    home = Path(os.environ.get("EMPORIUM_HOME") or tempfile.mkdtemp(prefix="emporium-bench-"))
    home.chmod(0o755)
    jars = os.environ.get("EMPORIUM_JARS", str(ROOT / ".emporium" / "jars"))
    env = os.environ | {"EMPORIUM_HOME": str(home), "EMPORIUM_JARS": jars}
    sampler = MemorySampler(home)
    sampler.start()
    results = []
    for number in range(args.nights):
        command = [str(ROOT / "emporium"), "run", "--source", args.source]
        command += ["--data", args.data] if args.data else []
        command += ["--as-of", args.as_of] if args.as_of and number == 0 else []
        sampler.peak = 0.0
        started = time.monotonic()
        done = subprocess.run(command, env=env, text=True, capture_output=True)
        seconds = time.monotonic() - started
        if done.returncode:
            sys.exit(f"{done.stdout}\n{done.stderr}")
        as_of = next(line.split("night ")[1].split()[0] for line in done.stdout.splitlines() if "is green" in line)
        tasks = task_seconds(env, as_of)
        results.append(
            {
                "night": as_of,
                "wall_s": round(seconds, 1),
                "task_s": round(sum(tasks.values()), 1),
                "tasks": {name: round(value, 1) for name, value in tasks.items()},
                "peak_mb": round(sampler.peak),
            }
        )
        print(json.dumps(results[-1]), flush=True)
    time.sleep(args.idle_seconds)
    idle = round(sampler.newest)
    sampler.stopped.set()
    if args.json:
        print(json.dumps({"nights": results, "idle_mb": idle}))
        return
    print(f"idle: {idle} MB; home {home} (stop it: EMPORIUM_HOME={home} ./emporium down)")


if __name__ == "__main__":
    main()
