"""The Delta jars: fetched once, checked against committed SHA-256 sums, then only read.

Resolving jars at every Spark start costs ten seconds and a network; so they are fetched at set-up by Ivy,
which pyspark ships, from Ivy's own default repository.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from include.services.doctor import java
from include.settings import settings

HERE = Path(__file__).parent
IVY_FILE = HERE / "jars.ivy.xml"
SUMS_FILE = HERE / "jars.sha256"
IVY_SECONDS = 300


def checksums() -> dict[str, str]:
    """The committed list: file name -> SHA-256 in hex, in the format of ``sha256sum``."""
    pairs = (line.split() for line in SUMS_FILE.read_text().splitlines() if line.strip())
    return {name: digest for digest, name in pairs}


def wrong(folder: Path) -> list[str]:
    """Names of the jars that ``folder`` lacks or holds with other content; empty when all is well."""
    return [name for name, digest in checksums().items() if _sha256(folder / name) != digest]


def fetch() -> Path:
    """Make ``settings().jars_dir`` hold every jar of the list and return it; instant when it does already.

    Other files in the folder are left alone. A jar appears complete or not at all.

    Raises ``RuntimeError`` when Java is missing, the repository cannot be reached, or a jar that came
    differs from its committed checksum (nothing is kept then).
    """
    folder = settings().jars_dir
    missing = wrong(folder) if folder.is_dir() else list(checksums())
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        fresh = Path(scratch) / "jars"
        _retrieve(Path(scratch) / "cache", fresh)
        if bad := wrong(fresh):
            raise RuntimeError(
                f"{', '.join(bad)} did not arrive with the checksum in {SUMS_FILE.name}; nothing was kept. "
                "Try again; if it stays so, the repository or a proxy serves something else."
            )
        for name in missing:
            os.replace(fresh / name, folder / name)
    return folder


def _retrieve(cache: Path, target: Path) -> None:
    found = java()
    if found is None:
        raise RuntimeError("Java is not installed: install a Java 17 runtime, or point JAVA_HOME at one.")
    command = [
        str(found), "-jar", str(_ivy()), "-ivy", str(IVY_FILE), "-cache", str(cache),
        "-retrieve", f"{target}/[artifact]-[revision].[ext]", "-types", "jar",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=IVY_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"The Delta jars did not arrive within {IVY_SECONDS} seconds: try again.") from error
    if done.returncode or not target.is_dir():
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reasons = [line for line in said if "not found" in line or "Exception" in line or "ERROR" in line]
        raise RuntimeError(
            "The Delta jars could not be fetched. Is the network up? Behind a proxy set "
            "JAVA_TOOL_OPTIONS='-Dhttps.proxyHost=... -Dhttps.proxyPort=...'. Ivy said: "
            + " | ".join((reasons or said)[-3:])
        )


def _ivy() -> Path:
    spec = importlib.util.find_spec("pyspark")
    folder = Path(spec.origin).parent / "jars" if spec and spec.origin else None
    jars = sorted(folder.glob("ivy-*.jar")) if folder else []
    if not jars:
        raise RuntimeError("pyspark is not installed: run `make setup`.")
    return jars[-1]


def _sha256(path: Path) -> str | None:
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    try:
        print(f"{len(checksums())} jars in {fetch()}")
    except (RuntimeError, OSError, ValueError) as error:
        sys.exit(f"setup: {error}")
