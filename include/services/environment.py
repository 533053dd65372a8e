"""The environment that services and tasks run in, and that a person needs to run ``airflow`` by hand.

Secrets travel in the environment only: never on a command line, never in a configuration file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from pathlib import Path

from include.secrets import secret
from include.settings import ROOT, settings
from include.warehouse.engine import dsn

SUPERVISED = "EMPORIUM_SUPERVISED"
"""Together with ``EMPORIUM_HOME`` marks every process that belongs to a running home."""

AIRFLOW_USER = "admin"

NOISY_LOGGERS = (
    "airflow.dag_processing.manager",  # three lines at every look into the DAG folder
    "airflow.serialization.definitions.dag",
    "alembic",
    "great_expectations",
    "py4j",
)

_KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "JAVA_HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a service inherits from the shell that starts it, besides proxies, AWS_*, AIRFLOW__* and EMPORIUM_*."""

_KEPT_PREFIXES = ("EMPORIUM_", "AIRFLOW__", "AWS_", "SPARK_", "MLFLOW_")
_KEPT_LOWER = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def airflow_home() -> Path:
    """Airflow's own folder: logs, its generated configuration and the passwords file."""
    return settings().home / "airflow"


def fernet_key() -> str:
    """A valid Fernet key (url-safe base64 of 32 bytes) from the secret ``airflow_fernet``, whatever its shape."""
    return base64.urlsafe_b64encode(hashlib.sha256(secret("airflow_fernet").encode()).digest()).decode()


def passwords_file() -> Path:
    """Where Airflow's SimpleAuthManager finds its passwords."""
    return airflow_home() / "passwords.json"


def write_passwords() -> None:
    """Write ``admin``'s password from the secret store to Airflow's passwords file, mode 0600."""
    path = passwords_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as handle:
        handle.write(json.dumps({AIRFLOW_USER: secret("airflow_admin")}) + "\n")
    os.replace(beside, path)


def environment() -> dict[str, str]:
    """The complete environment of the services and their tasks.

    The caller's ``AIRFLOW__*`` variables win over the defaults here (``_defaults``), not over what belongs to
    this home (``_fixed``). Every ``EMPORIUM_*`` variable is passed on.
    """
    cfg = settings()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES) or name.lower() in _KEPT_LOWER
    }
    env = _defaults() | inherited | _fixed()
    # A proxy of the shell must not come between our own services.
    direct = ",".join(filter(None, (env.get("no_proxy") or env.get("NO_PROXY"), cfg.host, "127.0.0.1,localhost")))
    return env | {"no_proxy": direct, "NO_PROXY": direct, "MLFLOW_TRACKING_URI": cfg.mlflow_base_url}


def _defaults() -> dict[str, str]:
    """What a deployment may change by setting the variable itself."""
    return {
        "LANG": "C.UTF-8",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Four running tasks keep two cores busy while one of them waits for the database.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "4",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
        "AIRFLOW__CORE__DAG_IGNORE_FILE_SYNTAX": "glob",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "5",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__EXPOSE_CONFIG": "False",
        "AIRFLOW__API__INSTANCE_NAME": "Emporium",
        # The scheduler sleeps this long when a loop found nothing to do: it is the hand-off latency.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
        "AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT": "False",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__LOGGING__UVICORN_LOGGING_LEVEL": "WARNING",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": " ".join(f"{name}=WARNING" for name in NOISY_LOGGERS),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "emporium",
        # One thread a process: LocalExecutor already runs a task per core, and BLAS threads on top thrash.
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "TZ": "UTC",
    }


def _fixed() -> dict[str, str]:
    """What belongs to this home and is never taken from the shell."""
    cfg = settings()
    url = cfg.airflow_base_url
    database = dsn("airflow", database="airflow").split("://", 1)[1]
    return {
        "PATH": os.pathsep.join(_path()),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        # A task's stdin is a socket; at shell level 1 bash takes that for a remote login and reads ~/.bashrc,
        # which may put another Python first on PATH.
        "SHLVL": "2",
        # setproctitle overwrites the block that /proc/<pid>/environ shows; down() finds leftovers there.
        "SPT_NOENV": "1",
        "EMPORIUM_HOME": str(cfg.home),
        SUPERVISED: "1",
        # platformdirs warns on every start when the folder of a user session is missing.
        "XDG_RUNTIME_DIR": str(cfg.home / "run"),
        "AIRFLOW_HOME": str(airflow_home()),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
        "AIRFLOW__CORE__FERNET_KEY": fernet_key(),
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{AIRFLOW_USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file()),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": cfg.host,
        "AIRFLOW__API__PORT": str(cfg.airflow_port),
        "AIRFLOW__API__SECRET_KEY": secret("airflow_api"),
        # HMAC-SHA512 wants a key of 64 bytes and warns at every token about a shorter one.
        "AIRFLOW__API_AUTH__JWT_SECRET": hashlib.sha512(secret("airflow_jwt").encode()).hexdigest(),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "SCARF_ANALYTICS": "false",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }


def mlflow_store() -> str:
    """SQLAlchemy URL of MLflow's database."""
    return "postgresql+psycopg2://" + dsn("mlflow", database="mlflow").split("://", 1)[1]


def _path() -> list[str]:
    first = str(Path(sys.executable).parent)
    rest = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder and folder != first]
    return [first, *rest]
