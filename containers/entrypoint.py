"""Run a program in the environment that the supervised services have: ``entrypoint.py airflow scheduler``.

So a container's Airflow is configured by the same code as the embedded one (include.services.environment).
"""

import os
import sys

from include.services.environment import environment, write_passwords


def main(argv: list[str]) -> None:
    """Replace this process by ``argv``; signals then reach the program itself."""
    os.umask(0o027)
    write_passwords()
    os.execvpe(argv[0], argv, environment())  # noqa: S606 - no shell, on purpose


if __name__ == "__main__":
    main(sys.argv[1:])
