"""Models: one folder per use case, one lifecycle for all of them (``ml_tasks/lifecycle``).

A folder with a ``USE_CASE`` is a use case; nothing else has to be registered.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_tasks.lifecycle.usecase import UseCase

# OpenMP threads that wait by spinning made a fit of 3 s take 45 s while other tasks had the cores. The
# runtime reads this when LightGBM is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def use_case_names() -> list[str]:
    """Names of all use cases: the folders beside ``lifecycle`` that hold a ``usecase.py``."""
    return sorted(
        path.parent.name for path in Path(__file__).parent.glob("*/usecase.py") if path.parent.name != "lifecycle"
    )


def use_case(name: str) -> UseCase:
    """The use case called ``name``; ``LookupError`` that lists the names otherwise."""
    if name not in use_case_names():
        raise LookupError(f"There is no use case {name!r}; there are {', '.join(use_case_names())}.")
    return importlib.import_module(f"ml_tasks.{name}.usecase").USE_CASE
