"""What services and tasks run with."""

import base64
import json
import os
import stat

from include.secrets import secret
from include.services import environment as module
from include.services.environment import environment
from include.settings import ROOT, settings


def test_two_homes_share_nothing(home, tmp_path, monkeypatch):
    first = environment()
    monkeypatch.setenv("EMPORIUM_HOME", str(tmp_path / "other"))
    settings.cache_clear()
    second = environment()
    for name in ("AIRFLOW_HOME", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "EMPORIUM_HOME"):
        assert first[name] != second[name], name


def test_airflow_serves_on_loopback_and_tells_nobody(home):
    env = environment()
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18080/execution/"
    assert env["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert env["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "False"
    assert env["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://airflow:")
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith("/emporium_airflow")


def test_fernet_key_is_valid_whatever_the_secret_looks_like(home, monkeypatch):
    monkeypatch.setenv("EMPORIUM_SECRET_AIRFLOW_FERNET", "short")
    assert len(base64.urlsafe_b64decode(module.fernet_key())) == 32


def test_bytecode_is_written_and_the_own_python_comes_first(home, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    env = environment()
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert env["PYTHONPATH"] == str(ROOT)
    assert env["PATH"].split(os.pathsep)[0] == os.path.dirname(os.sys.executable)


def test_shell_settings_reach_tasks_but_cannot_move_the_home(home, monkeypatch):
    monkeypatch.setenv("EMPORIUM_QUARANTINE_THRESHOLD", "0.2")
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "9")
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite://")
    env = environment()
    assert env["EMPORIUM_QUARANTINE_THRESHOLD"] == "0.2"
    assert env["AIRFLOW__CORE__PARALLELISM"] == "9"
    assert env["AIRFLOW_HOME"] == str(home / "airflow")
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql")


def test_a_proxy_never_stands_between_our_services(home, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "example.test")
    env = environment()
    assert {"example.test", "127.0.0.1", "localhost"} <= set(env["no_proxy"].split(","))
    assert env["NO_PROXY"] == env["no_proxy"]


def test_passwords_file_is_private_and_holds_the_admin(home):
    module.write_passwords()
    path = module.passwords_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"admin": secret("airflow_admin")}
