"""What DAG files share: the assets that join them and the one way to make a task."""

from include.airflow.assets import asset, models
from include.airflow.tasks import DAG_DEFAULTS, command_task, mapped_command_task

__all__ = ["DAG_DEFAULTS", "asset", "command_task", "mapped_command_task", "models"]
