"""Finding and ending the processes of a home, whoever their parent is by now.

Every process that a home starts inherits ``EMPORIUM_HOME`` and ``EMPORIUM_SUPERVISED=1``, so that they are
found after their supervisor was killed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable

import psutil

from include.services.environment import SUPERVISED
from include.settings import settings


def ours() -> list[psutil.Process]:
    """Live processes of this home, without this process and those it descends from."""
    home = str(settings().home)
    excluded = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in excluded:
            continue
        try:
            env = process.environ()
            is_alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue  # gone, or another user's
        if is_alive and env.get("EMPORIUM_HOME") == home and env.get(SUPERVISED) == "1":
            found.append(process)
    return found


def end(processes: Iterable[psutil.Process], grace: float = 3.0) -> None:
    """SIGTERM, then SIGKILL to those that live on after ``grace`` seconds."""
    processes = list(processes)
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=grace)


def end_ours(seconds: float = 20.0) -> int:
    """End every process of this home and return how many; repeats for those that were just being started.

    Raises ``RuntimeError`` naming the processes that outlive ``seconds``.
    """
    deadline = time.monotonic() + seconds
    seen: set[int] = set()
    while left := ours():
        if time.monotonic() > deadline:
            names = ", ".join(f"{process.pid} ({_name(process)})" for process in left)
            raise RuntimeError(f"These processes do not end: {names}. End them by hand with kill -9.")
        seen |= {process.pid for process in left}
        end(left)
    return len(seen)


def listens(process: psutil.Process, port: int) -> bool:
    """Whether ``process`` listens on TCP ``port``."""
    try:
        connections = process.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for c in connections)


def tree(pid: int) -> list[psutil.Process]:
    """The process and everything below it; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def memory_mb(processes: Iterable[psutil.Process]) -> tuple[float, float | None]:
    """Megabytes of (RSS, PSS) summed. RSS counts pages that forks share once per fork; PSS counts them
    once in all, and is None where the system does not tell."""
    rss, pss = 0.0, 0.0
    has_pss = True
    for process in processes:
        try:
            info = process.memory_full_info()
        except (psutil.Error, OSError):
            has_pss = False
            continue
        rss += info.rss
        has_pss = has_pss and hasattr(info, "pss")
        pss += getattr(info, "pss", 0)
    return round(rss / 1e6, 1), round(pss / 1e6, 1) if has_pss else None


def _signal(send) -> None:
    with contextlib.suppress(psutil.Error):
        send()


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "?"
