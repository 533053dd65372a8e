"""Sources whose YAML a test changes, in a folder of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from include.ingest import sources as module

Edit = Callable[[str, dict[str, Any]], None]


@contextmanager
def own_yamls(folder: Path) -> Iterator[Edit]:
    """A copy of all YAMLs in ``folder``, which is what every command reads; yields ``edit(entity, changes)``.

    ``edit("demo_outlet.orders", {...})`` merges into an entity; ``edit("shop", {...})`` writes a whole new source.
    """
    before = module.FOLDER
    for path in before.glob("*.yaml"):
        shutil.copy(path, folder)
    module.FOLDER = folder
    module.load_source.cache_clear()

    def edit(target: str, changes: dict[str, Any]) -> None:
        source, _, entity = target.partition(".")
        path = folder / f"{source}.yaml"
        if entity:
            content = yaml.safe_load(path.read_text())
            of = content["entities"][entity]
            for key, value in changes.items():
                of[key] = {**of[key], **value} if isinstance(value, dict) and key in of else value
        else:
            content = changes
        path.write_text(yaml.safe_dump(content))
        module.load_source.cache_clear()

    try:
        yield edit
    finally:
        module.FOLDER = before
        module.load_source.cache_clear()
