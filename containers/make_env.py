"""Write the ``.env`` that docker-compose.yaml asks for: one random value per secret it names, mode 0600.

Values that are there stay as they are; only missing ones are added. Needs nothing but Python.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = re.compile(r"\$\{(EMPORIUM_SECRET_[A-Z0-9_]+):\?")


def required(compose: str) -> list[str]:
    """The secrets that the compose file refuses to start without, sorted."""
    return sorted(set(REQUIRED.findall(compose)))


def write_env(compose: Path, env: Path) -> list[str]:
    """Add the missing secrets to ``env``; returns their names. Hex, so that each fits into a URL as it is."""
    there = env.read_text() if env.exists() else ""
    known = {line.split("=", 1)[0] for line in there.splitlines() if "=" in line}
    missing = [name for name in required(compose.read_text()) if name not in known]
    beside = env.with_name(f"{env.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as handle:
        handle.write(there if not there or there.endswith("\n") else there + "\n")
        handle.writelines(f"{name}={secrets.token_hex(32)}\n" for name in missing)
    os.replace(beside, env)
    return missing


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".env"
    made = write_env(ROOT / "docker-compose.yaml", target)
    print(f"{target}: {len(made)} secrets added" if made else f"{target}: complete, nothing added")
