"""Secrets, generated on first use, mode 0600, never in git, logs or XCom.

Looked up in ``EMPORIUM_SECRET_<NAME>`` (containers), else in ``<home>/secrets/<name>``.
"""

from __future__ import annotations

import os
import secrets as _stdlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from include.settings import settings

_in_memory: ContextVar[dict[str, str] | None] = ContextVar("in_memory", default=None)


def secret(name: str) -> str:
    """The secret called ``name`` (lower case, underscores), made of 32 random bytes on first use.

    Safe against two processes asking first: the file is linked into place complete, and the loser
    reads the winner's.
    """
    if value := os.environ.get(f"EMPORIUM_SECRET_{name.upper()}"):
        return value
    folder = settings().home / "secrets"
    path = folder / name
    if not path.exists():
        if (made := _in_memory.get()) is not None:
            return made.setdefault(name, _stdlib.token_urlsafe(32))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(folder, 0o700)
        _create_once(path, _stdlib.token_urlsafe(32))
    return path.read_text().strip()


@contextmanager
def nothing_written() -> Iterator[None]:
    """Within the block a secret that would be made is made up for the block alone: trying a source leaves no trace."""
    token = _in_memory.set({})
    try:
        yield
    finally:
        _in_memory.reset(token)


def _create_once(path: Path, value: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as handle:
        handle.write(value)
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(beside)


def given(name: str) -> str:
    """A secret that only a person can know, such as a shop's address and password: never made up.

    ``ValueError`` says where to put it.
    """
    path = settings().home / "secrets" / name
    if not os.environ.get(f"EMPORIUM_SECRET_{name.upper()}") and not path.exists():
        raise ValueError(
            f"The secret {name} is not there: set EMPORIUM_SECRET_{name.upper()}, or write it to {path} (mode 0600)."
        )
    return secret(name)


def forget(name: str) -> None:
    """Remove a secret from the store; the next `secret` of that name is a new one."""
    (settings().home / "secrets" / name).unlink(missing_ok=True)
