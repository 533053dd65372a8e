"""``make bench``: every measurement, one after the other; ``make bench ARGS="ingest relational"`` takes those named."""

import argparse
import subprocess
import sys

NAMES = ("night", "ingest", "relational", "warehouse")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    help_text = f"{', '.join(NAMES)}; default all"
    parser.add_argument("name", nargs="*", choices=[*NAMES, []], metavar="NAME", help=help_text)
    failed = []
    for name in parser.parse_args().name or NAMES:
        print(f"=== python -m benchmarks.{name}", flush=True)
        # A process each: what one leaves in memory must not count for the next.
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode:
            failed.append(name)
    sys.exit(f"failed or over its bound: {', '.join(failed)}" if failed else 0)
