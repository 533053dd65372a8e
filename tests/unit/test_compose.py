"""docker-compose.yaml against the published Compose schema, and against what this project promises.

No container engine runs here: these tests are all the checking that the containers get.
"""

import hashlib
import json
import re
import stat
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from containers.make_env import required, write_env
from include.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Path(__file__).parent / "data" / "compose-spec" / "compose-spec.json"
SCHEMA_SHA256 = "46b7d35f19dd93a05f8fea530291bf84d881c1791ec167ecf0e6fb94e639d496"

TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict] = COMPOSE["services"]
ONE_SHOT = {"lake-volume", "lake-bucket", "init", "night"}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|REDISCLI_AUTH|_KEY$")
SECRET_VALUE = re.compile(r"\$\{EMPORIUM_SECRET_[A-Z_]+:\?[^}]+\}")
LOCALHOST_PORT = re.compile(r"127\.0\.0\.1:(\d+|\$\{[A-Z_]+:-\d+\}):\d+")
IMAGE = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)?:[A-Za-z0-9_.-]+")


def environment(name: str) -> dict[str, str]:
    return SERVICES[name].get("environment", {})


def settings_names() -> set[str]:
    return {f"EMPORIUM_{field.upper()}" for field in Settings.model_fields}


def test_schema_is_the_published_one():
    assert hashlib.sha256(SCHEMA.read_bytes()).hexdigest() == SCHEMA_SHA256


def schema_errors(document: dict) -> list[str]:
    validator = Draft7Validator(json.loads(SCHEMA.read_text()))
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(document)]


def test_compose_file_follows_the_published_schema():
    assert schema_errors(COMPOSE) == []


def test_schema_check_refuses_a_misspelt_key():
    broken = json.loads(json.dumps(COMPOSE))
    broken["services"]["postgres"]["healtcheck"] = broken["services"]["postgres"].pop("healthcheck")
    assert schema_errors(broken)


def test_the_whole_system_is_there():
    assert {
        "postgres", "minio", "lake-bucket", "init", "mlflow", "spark-master", "spark-worker", "airflow-api",
        "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "redis", "airflow-worker", "night",
    } <= set(SERVICES)  # fmt: skip
    assert {name for name, service in SERVICES.items() if "celery" in service.get("profiles", [])} == {
        "redis",
        "airflow-worker",
    }


def test_every_emporium_variable_is_a_setting_or_a_secret():
    used = {key for name in SERVICES for key in environment(name) if key.startswith("EMPORIUM_")}
    assert {"EMPORIUM_DSN", "EMPORIUM_LAKE", "EMPORIUM_SPARK_MASTER"} <= used
    assert {key for key in used if not key.startswith("EMPORIUM_SECRET_")} - settings_names() == set()


def secrets_of_the_code() -> set[str]:
    """Every name in a call ``secret("...")``, and ``pg_<role>`` for each role of the warehouse."""
    from include.warehouse.engine import ROLES
    from include.warehouse.roles import SERVICES as SERVICE_ROLES

    literal = re.compile(r"""\bsecret\(["']([a-z_]+)["']\)""")
    found = {name for path in (ROOT / "include").rglob("*.py") for name in literal.findall(path.read_text())}
    assert "pg_owner" in found
    return found | {f"pg_{role}" for role in (*ROLES, *SERVICE_ROLES, "shop_reader")}


def test_containers_get_every_secret_that_the_code_asks_for():
    given = {key.removeprefix("EMPORIUM_SECRET_").lower() for key in environment("init")}
    missing = secrets_of_the_code() - given
    assert not missing, f"a container would make its own {sorted(missing)}: add them to x-environment"


def test_every_published_port_binds_the_loopback_address():
    ports = [(name, port) for name, service in SERVICES.items() for port in service.get("ports", [])]
    assert len(ports) >= 4
    assert [entry for entry in ports if not LOCALHOST_PORT.fullmatch(str(entry[1]))] == []


def test_no_secret_is_written_out():
    secrets = [(n, k, v) for n in SERVICES for k, v in environment(n).items() if SECRET_NAME.search(k)]
    assert len(secrets) > 10
    assert [entry for entry in secrets if not SECRET_VALUE.fullmatch(str(entry[2]))] == []
    in_urls = re.findall(r"://[^\s:/@]*:(\$\{[^}]*\}|[^\s@]*)@", TEXT)
    assert in_urls, "the DSN should be among these"
    assert [value for value in in_urls if not SECRET_VALUE.fullmatch(value)] == []


def test_dependencies_exist_and_can_be_met():
    seen = 0
    for name, service in SERVICES.items():
        for target, how in service.get("depends_on", {}).items():
            seen += 1
            assert target in SERVICES, f"{name} waits for {target}, which is not there"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[target], f"{name} waits for {target}, which has no health check"
            if how["condition"] == "service_completed_successfully":
                assert target in ONE_SHOT, f"{name} waits for {target} to end, which never does"
            optional = set(SERVICES[target].get("profiles", []))
            assert optional <= set(service.get("profiles", [])), f"{name} needs {target} of another profile"
    assert seen > 10


def test_dependencies_have_no_cycle():
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join((*above, name))}"
        if name not in order:
            for target in SERVICES[name].get("depends_on", {}):
                visit(target, (*above, name))
            order.append(name)

    for name in SERVICES:
        visit(name, ())
    assert order.index("postgres") < order.index("init") < order.index("airflow-scheduler")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_is_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    if name == "lake-volume":
        assert service["network_mode"] == "none"
    elif "build" in service:
        assert "user" not in service, "the Dockerfile's user is the one"
    else:
        assert service["user"] not in ("root", "0"), name
    assert (service.get("restart") == "no") == (name in ONE_SHOT)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_image_is_pinned_and_has_no_registry_host(name):
    image = SERVICES[name]["image"]
    assert IMAGE.fullmatch(image), image
    assert not image.endswith(":latest")


def test_every_long_running_service_has_a_health_check():
    without = {name for name, service in SERVICES.items() if "healthcheck" not in service} - ONE_SHOT
    assert without == {"spark-worker"}, "the worker's health is the master's business"


def test_named_volumes_are_declared():
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = re.sub(r"^\$\{\w+:-([^}]+)\}", r"\1", volume).split(":")[0]
            if not source.startswith("."):
                used.add(source)
            else:
                assert (ROOT / source).is_dir(), volume
    assert used == set(COMPOSE["volumes"])


def test_files_that_containers_run_exist():
    words = re.findall(r"\bcontainers/[\w./-]+\.(?:py|sh|json|txt|xml)", TEXT + (ROOT / "Dockerfile").read_text())
    assert "containers/entrypoint.py" in words
    assert [word for word in words if not (ROOT / word).is_file()] == []
    modules = set(re.findall(r"-m, ([\w.]+)|-m ([\w.]+)", TEXT))
    names = {left or right for left, right in modules if (left or right).startswith("include.")}
    assert "include.warehouse.migrate" in names
    for name in names:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"there is no module {name}"


def test_dockerfile_builds_on_an_allowed_python_as_another_user():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert all(IMAGE.fullmatch(base) and not base.endswith(":latest") for base in bases), bases
    pythons = {base for base in bases if base.startswith("python:")}
    assert len(pythons) == 1, "building and running on different Pythons breaks the copied environment"
    minor = re.match(r"python:(3\.\d+)", pythons.pop()).group(1)
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert allowed == ">=3.11,<3.13"
    assert minor in ("3.11", "3.12")
    assert [line for line in lines if line.startswith("USER ")] == ["USER emporium"]
    assert sum("--require-hashes" in line for line in lines) == 2


def test_postgres_image_is_the_embedded_major():
    from include.services import postgres

    major = re.search(r"pginstall(\d+)", Path(postgres.__file__).read_text()).group(1)
    assert SERVICES["postgres"]["image"] == f"postgres:{major}"


def test_env_file_is_complete_private_and_stable(tmp_path):
    env = tmp_path / ".env"
    made = write_env(ROOT / "docker-compose.yaml", env)
    assert made == required(TEXT)
    assert len(made) > 10
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    first = env.read_text()
    values = [line.split("=", 1)[1] for line in first.splitlines()]
    assert len(set(values)) == len(values)
    assert all(len(value) == 64 for value in values)
    env.write_text("MINE=1\n" + first.replace(f"{made[0]}=", "GONE="))
    assert write_env(ROOT / "docker-compose.yaml", env) == [made[0]]
    assert env.read_text().startswith("MINE=1\n")
    assert write_env(ROOT / "docker-compose.yaml", env) == []


def test_env_file_never_reaches_git_or_the_image():
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in (ROOT / ".dockerignore").read_text().splitlines()
