"""The MLflow server in one process: ``python -m include.services.mlflow_server``.

``mlflow server`` imports MLflow twice, in a parent that only waits (230 MB, five seconds) and whose sudden
death leaves the child on the port. This is what its child does, and it brings the database to head first.
Everything it needs is in the settings and the environment; nothing secret is on its command line.
"""

from __future__ import annotations

import os

import uvicorn

from include.services.environment import mlflow_store
from include.settings import Settings, settings


def server_environment(cfg: Settings) -> dict[str, str]:
    """The variables by which ``mlflow server`` configures the process that serves."""
    hosts = dict.fromkeys((cfg.host, "127.0.0.1", "localhost"))
    return {
        "_MLFLOW_SERVER_FILE_STORE": mlflow_store(),
        "_MLFLOW_SERVER_REGISTRY_STORE": mlflow_store(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(cfg.home / "mlflow" / "artifacts"),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(f"{host}:{cfg.mlflow_port}" for host in hosts),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def bring_to_head(uri: str) -> None:
    """Make MLflow's tables, or migrate those of an older MLflow."""
    from mlflow.store.db import utils as db

    engine = db.create_sqlalchemy_engine_with_retry(uri)
    try:
        if not db._all_tables_exist(engine):
            db._initialize_tables(engine)
        elif db._get_schema_version(engine) != db._get_latest_schema_revision():
            db._upgrade_db(engine)
    finally:
        engine.dispose()


def main() -> None:
    """Serve until stopped."""
    cfg = settings()
    os.environ.update(server_environment(cfg))
    bring_to_head(mlflow_store())
    # Access lines of every logged metric would fill the log; errors still show.
    uvicorn.run(
        "mlflow.server.fastapi_app:app", host=cfg.host, port=cfg.mlflow_port, log_level="warning", access_log=False
    )


if __name__ == "__main__":
    main()
