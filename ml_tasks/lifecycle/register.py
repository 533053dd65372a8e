"""MLflow: runs, versions, the ``champion`` alias, and files that are checked before they are believed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.settings import settings
from ml_tasks.lifecycle.usecase import Context, Files, UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient

META = "meta.json"
FOLDER = "model"


@dataclass(frozen=True)
class Version:
    """A registered version and its files."""

    version: str
    run_id: str
    files: Files
    code_version: str


class Tampered(RuntimeError):
    """A model file is not the one that was registered."""


@lru_cache(maxsize=1)
def client() -> MlflowClient:
    """The client of ``settings().mlflow_base_url``. A server that is down is an error after seconds, not minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient

    return MlflowClient(settings().mlflow_base_url)


@contextmanager
def _asked_to(do: str) -> Iterator[None]:
    """What MLflow refuses, or does not answer, becomes a ``RuntimeError`` of one sentence."""
    client()  # before the import: it sets what MLflow reads when it is imported
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RuntimeError(f"MLflow at {settings().mlflow_base_url} did not {do}: {_short(error)}") from error


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def meta_of(files: Files, facts: Mapping[str, Any]) -> str:
    """``meta.json``: ``facts`` and the SHA-256 of every file."""
    return json.dumps(
        {**facts, "files": {name: sha256(text) for name, text in sorted(files.items())}}, sort_keys=True, indent=1
    )


def verify(folder: Path, meta_sha256: str) -> Files:
    """The model's files, read from ``folder``; ``Tampered`` unless each is what was registered.

    ``meta.json`` must have the SHA-256 that the registry keeps, and list exactly the other files with theirs.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    if META not in paths:
        raise Tampered(f"The model has no {META}.")
    meta = _text(paths.pop(META))
    if sha256(meta) != meta_sha256:
        raise Tampered(f"{META} is not the one that was registered (its SHA-256 differs from the registry's).")
    listed = json.loads(meta)["files"]
    if set(listed) != set(paths):
        raise Tampered(f"The model's files are {sorted(paths)}, but {META} lists {sorted(listed)}.")
    files = {name: _text(paths[name]) for name in sorted(paths)}
    for name, text in files.items():
        if sha256(text) != listed[name]:
            raise Tampered(f"{name} is not the file that was registered (its SHA-256 differs from {META}'s).")
    return files


def find(use_case: UseCase, ctx: Context, fingerprint: str) -> Version | None:
    """The challenger that an earlier run of D registered from the same training rows, code and parameters.

    The oldest whose files are those that were registered; one that is refused is printed and passed over.
    """
    with _asked_to(f"look for versions of {use_case.model}"):
        found = client().search_model_versions(
            f"name = '{use_case.model}' and tags.use_case = '{use_case.name}' "
            f"and tags.as_of = '{ctx.as_of}' and tags.data_fingerprint = '{fingerprint}'"
        )
    for version in sorted(int(one.version) for one in found):
        try:
            return load(use_case.model, str(version))
        except Tampered as error:
            print(f"{use_case.name}: {error} It is passed over.", flush=True)
    return None


def load(name: str, version: str) -> Version:
    """A version with its files, verified. Errors name the model and version."""
    with _asked_to(f"give model {name} version {version}"), tempfile.TemporaryDirectory() as folder:
        known = client().get_model_version(name, version)
        run_id = known.run_id or ""
        client().download_artifacts(run_id, FOLDER, folder)
        try:
            files = verify(Path(folder, FOLDER), known.tags.get("meta_sha256", ""))
        except Tampered as error:
            raise Tampered(f"Model {name} version {version} is refused: {error}") from error
    return Version(version, run_id, files, known.tags.get("code_version", ""))


def register(
    use_case: UseCase,
    ctx: Context,
    fingerprint: str,
    files: Files,
    facts: Mapping[str, Any],
) -> Version:
    """A run with parameters and files, and a new version of the registered model (no alias)."""
    tags = {
        "use_case": use_case.name,
        "as_of": str(ctx.as_of),
        "data_fingerprint": fingerprint,
        "code_version": str(use_case.version),
    }
    with _asked_to(f"register {use_case.model}"):
        from mlflow.entities import Param

        experiment_id = _experiment(use_case.name)
        run = client().create_run(experiment_id, run_name=f"{use_case.name} {ctx.as_of}", tags=tags)
        run_id = run.info.run_id
        client().log_batch(
            run_id,
            params=[
                Param("horizon_days", str(ctx.horizon_days)),
                Param("seed", str(ctx.seed)),
                *[Param(key, str(value)) for key, value in use_case.params.items()],
            ],
        )
        meta = meta_of(files, {**tags, **facts})
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**files, META: meta}.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            client().log_artifacts(run_id, folder, FOLDER)
        _ensure_model(use_case)
        version = client().create_model_version(
            use_case.model,
            f"runs:/{run_id}/{FOLDER}",
            run_id,
            tags={**tags, "meta_sha256": sha256(meta)},
            await_creation_for=0,
        )
        client().set_terminated(run_id)
    return Version(str(version.version), run_id, files, tags["code_version"])


def attach(version: Version, card: str, metrics: Mapping[str, float], picture: bytes | None) -> None:
    """Put the evaluation's metrics, the model card and its picture into the version's run."""
    with _asked_to(f"keep the model card of run {version.run_id}"), tempfile.TemporaryDirectory() as folder:
        for name, value in metrics.items():
            client().log_metric(version.run_id, name, value)
        Path(folder, "model_card.md").write_text(card)
        if picture:
            Path(folder, "model_card.png").write_bytes(picture)
        client().log_artifacts(version.run_id, folder)


def has_card(version: Version) -> bool:
    """Whether the version's run has its model card (a run that was killed may have left none)."""
    with _asked_to(f"list the files of run {version.run_id}"):
        return any(one.path == "model_card.md" for one in client().list_artifacts(version.run_id))


def point_alias(use_case: UseCase, version: str | None) -> None:
    """Point the alias ``champion`` at ``version``; take it away when a naive rule is champion."""
    with _asked_to(f"move the alias of {use_case.model}"):
        from mlflow.exceptions import MlflowException

        try:
            if version is not None:
                client().set_registered_model_alias(use_case.model, "champion", version)
            elif "champion" in client().get_registered_model(use_case.model).aliases:
                client().delete_registered_model_alias(use_case.model, "champion")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise


def _experiment(name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client().get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    try:
        return client().create_experiment(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        found = client().get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def _ensure_model(use_case: UseCase) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client().create_registered_model(use_case.model, {"use_case": use_case.name}, use_case.predicts)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise Tampered(f"{path.name} is not the file that was registered (it is not text).") from error


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:300]
