"""``make bench``: every measurement, one after the other. ``python -m benchmarks.<name>`` runs one."""

import sys

from benchmarks import night

if __name__ == "__main__":
    sys.exit(night.main())
