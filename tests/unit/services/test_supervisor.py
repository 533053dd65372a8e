"""What supervisord is told to run, and that no secret shows in it."""

import configparser
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from include.secrets import secret
from include.services import mlflow_server, supervisor
from include.services.environment import environment
from include.settings import settings


@pytest.fixture
def parsed(home) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(supervisor.config())
    return parser


def secret_values(home: Path) -> list[str]:
    environment()  # makes them
    for name in ("pg_owner", "pg_mlflow", "airflow_admin"):
        secret(name)
    return [path.read_text().strip() for path in (home / "secrets").iterdir()]


def test_every_service_is_run_restarted_and_rotated(parsed):
    names = {section.split(":")[1] for section in parsed.sections() if section.startswith("program:")}
    assert names == {
        "postgres", "mlflow", "docs", "airflow-api", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer",
    }  # fmt: skip
    for name in names:
        section = parsed[f"program:{name}"]
        assert section["autorestart"] == "true"
        assert int(section["stdout_logfile_backups"]) > 0
        # Postgres's children leave the group; a signal to the group would only cancel their queries.
        assert section["stopasgroup"] == section["killasgroup"] == str(name != "postgres").lower()


def test_postgres_stops_last_and_in_fast_mode(parsed):
    priorities = {s: int(parsed[s]["priority"]) for s in parsed.sections() if s.startswith("program:")}
    assert min(priorities, key=priorities.__getitem__) == "program:postgres"
    assert parsed["program:postgres"]["stopsignal"] == "INT"


def test_no_secret_on_a_command_line_or_in_the_configuration(home):
    values = secret_values(home)
    assert len(values) >= 6
    text = supervisor.config() + " ".join(word for program in supervisor.programs() for word in program.command)
    assert not [value for value in values if value in text]


def test_postgres_inherits_no_environment(home):
    (postgres,) = [p for p in supervisor.programs() if p.name == "postgres"]
    assert postgres.command[:2] == ["/usr/bin/env", "-i"]


def test_services_elsewhere_are_not_started(home, monkeypatch):
    monkeypatch.setenv("EMPORIUM_DSN", "postgresql://someone@elsewhere/db")
    monkeypatch.setenv("EMPORIUM_MLFLOW_URL", "http://elsewhere:5000")
    settings.cache_clear()
    names = [program.name for program in supervisor.programs()]
    assert "postgres" not in names
    assert "mlflow" not in names
    assert "airflow-api" in names


def test_paths_with_spaces_and_percent_signs_survive(tmp_path, home, monkeypatch):
    odd = tmp_path / "50% off sale"
    monkeypatch.setenv("EMPORIUM_HOME", str(odd))
    settings.cache_clear()
    parser = configparser.RawConfigParser()
    parser.read_string(supervisor.config())
    command = parser["program:docs"]["command"].replace("%%", "%")
    assert str(odd / "docs") in shlex.split(command)


def test_a_long_home_gets_a_short_private_socket(tmp_path, home, monkeypatch):
    assert supervisor._socket().is_relative_to(home) or len(str(home)) > 60
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path / ("x" * 120)))
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr("tempfile.tempdir", None)
    settings.cache_clear()
    path = supervisor._socket()
    assert len(str(path)) <= supervisor.SOCKET_PATH_LIMIT
    assert not path.parent.exists()
    supervisor._make_socket_folder()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o755)
    with pytest.raises(RuntimeError, match="belongs to someone else"):
        supervisor._socket()
    supervisor._folder().mkdir(parents=True)
    path.parent.chmod(0o700)
    supervisor._stop_everything()
    assert not path.parent.exists()


def test_a_changed_setting_changes_the_fingerprint_and_a_changed_terminal_does_not(home, monkeypatch):
    before = supervisor._fingerprint(environment())
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("PATH", "/usr/bin")
    assert supervisor._fingerprint(environment()) == before
    monkeypatch.setenv("EMPORIUM_QUARANTINE_THRESHOLD", "0.2")
    assert supervisor._fingerprint(environment()) != before


def test_mlflow_is_configured_by_the_names_that_its_own_launcher_uses(home):
    """They are internal to MLflow: this fails when a new version renames one."""
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    known = set(re.findall(r'"(_?MLFLOW_[A-Z_]+)"', (folder / "server" / "constants.py").read_text()))
    known |= set(re.findall(r'"(_?MLFLOW_[A-Z_]+)"', (folder / "environment_variables.py").read_text()))
    assert set(mlflow_server.server_environment(settings())) <= known


def test_up_reports_every_problem_and_starts_nothing(home, monkeypatch):
    monkeypatch.setattr(supervisor.doctor, "check", lambda: ["No Java.", "No disk."])
    with pytest.raises(RuntimeError, match=r"No Java\.\nNo disk\."):
        supervisor.up()
    assert not (home / "supervisor").exists()
