"""``python -m ml_tasks.score churn --as-of D``: stage the predictions of D's champion."""

import sys

from ml_tasks._command import run
from ml_tasks.lifecycle.score import score

if __name__ == "__main__":
    sys.exit(run(score, "Stage the predictions of a business day with its champion."))
