"""A DAG task is a command: the line in the task's log can be run by hand in the checkout."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator

AS_OF = "--as-of {{ partition_key }}"
PLANNED_SOURCES = "{% for line in ti.xcom_pull(task_ids='plan_sources') %}--source {{ line.split()[1] }} {% endfor %}"
"""The sources that ``plan_sources`` chose, for a command that takes them all."""

NOTHING_TO_DO = 99
"""A command that exits with 99 found nothing to do: the task is skipped and so is what hangs on it."""

DAG_DEFAULTS: dict[str, Any] = {
    "max_active_runs": 1,
    "catchup": False,
    "is_paused_upon_creation": False,
    "default_args": {
        "owner": "data-platform",
        "retries": 2,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=1),
    },
}
"""The same for every DAG: one day at a time, in order; two retries, since every command is idempotent."""


def command_task(task_id: str, module: str, *arguments: str, **kwargs: Any) -> BashOperator:
    """The task that runs ``python -m <module> <arguments> --as-of <partition key>``."""
    command = " ".join(["python -m", module, *arguments, AS_OF])
    return BashOperator(task_id=task_id, bash_command=command, skip_on_exit_code=NOTHING_TO_DO, **kwargs)


def mapped_command_task(task_id: str, command: str, plan: Any, *, with_data: bool = False, **kwargs: Any) -> Any:
    """One task per planned source: ``<command> --source S --as-of D [--from D0]``, with ``--data`` where it reads."""

    def line(arguments: str) -> str:
        return f"{command} {arguments if with_data else arguments.split(' --data ')[0]}"

    return BashOperator.partial(
        task_id=task_id,
        skip_on_exit_code=NOTHING_TO_DO,
        map_index_template="{{ task.bash_command.split('--source ')[1].split()[0] }}",
        **kwargs,
    ).expand(bash_command=plan.output.map(line))
