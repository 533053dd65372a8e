"""What DAG files share: the assets that join them and the one way to make a task."""

from include.airflow.assets import USE_CASES, asset
from include.airflow.tasks import DAG_DEFAULTS, PLANNED_SOURCES, command_task, mapped_command_task

__all__ = ["DAG_DEFAULTS", "PLANNED_SOURCES", "USE_CASES", "asset", "command_task", "mapped_command_task"]
