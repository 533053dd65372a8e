"""The one typed place for settings. Every field is an environment variable ``EMPORIUM_<FIELD>``.

State lives under ``EMPORIUM_HOME`` (default ``.emporium/`` in the checkout); two homes with other
ports run side by side on one machine.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: the folder that holds ``dags/``, ``dbt_project/`` and the rest."""


class Settings(BaseSettings):
    """All settings of one Emporium. Units are in the field names or descriptions."""

    model_config = SettingsConfigDict(env_prefix="EMPORIUM_", extra="ignore")

    home: Path = Field(ROOT / ".emporium", description="Where state lives: database, lake, logs, secrets.")
    dsn: str | None = Field(
        None, description="libpq URL of a Postgres >= 15 to use instead of the embedded one; its user owns all."
    )
    host: str = Field("127.0.0.1", description="The address that services bind and clients dial.")
    pg_port: int = 15432
    airflow_port: int = 18080
    mlflow_port: int = 15000
    docs_port: int = 18081
    airflow_url: str | None = Field(None, description="Airflow's address where it is not ours to start.")
    mlflow_url: str | None = Field(None, description="MLflow's address where it is not ours to start.")

    lake: str | None = Field(None, description="Lake root: a folder, or s3://... ; default <home>/lake.")
    lake_retention_days: int = Field(
        7, ge=7, description="Days that files which the lake replaced, its log and old logs of tasks are kept."
    )
    jars: Path | None = Field(None, description="Folder of the Delta jars; default <home>/jars.")
    spark_master: str = Field("local[2]", description="local[*], spark://host:port or k8s://...")
    spark_driver_memory: str = "1g"

    quarantine_threshold: float = Field(
        0.05, ge=0, le=1, description="Share of an entity's day above which its batch stops."
    )
    feature_history_days: int = Field(400, description="Days of demand history that features keep.")
    forecast_horizon_days: int = 28
    churn_horizon_days: int = 90
    training_cutoffs: int = Field(12, description="How many month-first cutoffs the churn training set uses.")
    reporting_currency: str = Field(
        "EUR", pattern="^[A-Z]{3}$", description="ISO 4217: what money is converted to beside its own currency."
    )
    seed: int = 20240229

    demo_start: str = "2024-01-01"
    demo_first_night: str = "2025-12-31"
    demo_end: str = "2026-01-31"
    source: str = Field("demo", description="The group of sources that a night takes: demo, olist, online_retail, ...")
    data: Path | None = Field(None, description="Folder of the files that a file source reads.")

    dbt_threads: int | None = Field(
        None, ge=1, description="How many models and tests dbt builds at once; default by processors, up to 8."
    )
    dbt_schema: str | None = Field(None, description="The schema that `make dbt` builds into; default dev_<user>.")

    @field_validator("home", "jars", "data", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().resolve() if value else value

    @property
    def lake_root(self) -> str:
        return self.lake or str(self.home / "lake")

    @property
    def jars_dir(self) -> Path:
        return self.jars or self.home / "jars"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def airflow_base_url(self) -> str:
        return self.airflow_url or f"http://{self.host}:{self.airflow_port}"

    @property
    def mlflow_base_url(self) -> str:
        return self.mlflow_url or f"http://{self.host}:{self.mlflow_port}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once. Tests that change the environment call ``settings.cache_clear()``."""
    return Settings()
