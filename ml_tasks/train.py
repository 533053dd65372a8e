"""``python -m ml_tasks.train churn --as-of D``: train a challenger, decide who is champion as of D."""

import sys

from ml_tasks._command import run
from ml_tasks.lifecycle.train import train

if __name__ == "__main__":
    sys.exit(run(train, "Train a challenger as of a business day and decide who is champion."))
