"""What must hold of the repository as a whole: imports go one way, nothing private or local is in a file,
the documents name commands that exist, the lock holds what was asked for.
"""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("spark_jobs", "ml_tasks", "expectations")
VENDORED = "tests/unit/data/"


def repository_files() -> list[Path]:
    """Files that git tracks or would add: what a commit of everything here would hold."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in sorted(set(done.stdout.split("\0"))) if name]
    return [path for path in files if path.is_file()]


def texts() -> dict[str, str]:
    """Text of every file by its path from the root, without binaries and published files kept as they are."""
    found = {}
    for path in repository_files():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(VENDORED):
            continue
        try:
            found[name] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    assert len(found) > 20, "the scan sees hardly any files"
    assert "pyproject.toml" in found
    return found


# Written in pieces, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a registry's host": re.compile(
        "|".join(
            re.escape(host)
            for host in (
                "pypi" + ".org", "python" + "hosted.org", "repo1.maven" + ".org", "repo.maven" + ".apache.org",
                "registry.npm" + "js.org", "docker" + ".io", "quay" + ".io", "gh" + "cr.io", "gcr" + ".io",
                "deb.debian" + ".org", "crates" + ".io", "proxy.golang" + ".org", "mcr.micro" + "soft.com",
            )
        )
    ),
    "a path of one machine": re.compile(
        r"(?<![\w.])/(?:(?:work|root|Users/\w+)" + r"/[\w.]|home/\w+/(?:\.|work|src|code|projects?)\b)"
    ),
    "the workplace's own tools": re.compile(r"\.lib" + r"rary\b"),
    "a private key": re.compile("-----BEGIN [A-Z ]*PRIVATE" + " KEY-----"),
    "a cloud key": re.compile(r"\bAKIA" + r"[0-9A-Z]{16}\b"),
    "a password in a URL": re.compile(r"://\w+:(?!\$|\{|<|\w*pass|secret\b)[A-Za-z0-9_\-]{6,}@"),
}  # fmt: skip


def offences(text: str) -> list[str]:
    return [what for what, pattern in FORBIDDEN.items() if pattern.search(text)]


@pytest.mark.parametrize(
    "text",
    [
        "https://pypi" + ".org/simple",
        "/work" + "/main/include",
        "see /root" + "/.ssh",
        "grep -r x .lib" + "rary/env",
        "-----BEGIN RSA PRIVATE" + " KEY-----",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "postgresql://loader:hunter" + "22@db/emporium",
    ],
)
def test_scan_finds_what_it_looks_for(text):
    assert offences(text)


def test_no_registry_host_machine_path_or_secret_in_any_file():
    found = {name: offences(text) for name, text in texts().items()}
    assert {name: what for name, what in found.items() if what} == {}


def test_secret_files_and_state_are_ignored_by_git():
    for name in (".env", ".emporium/secrets/pg_owner", ".emporium-two/lake/x", ".venv/x", "dbt_project/target/x"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0, f"{name} is not ignored"


# Sources


def test_a_source_is_its_yaml_and_its_staging_models_and_nothing_else():
    """The e-shop's click stream was added last: the diff that added it is what names it."""
    name = "eshop_clicks"
    everything = {path: text for path, text in texts().items() if not path.startswith(("tests/", "docs/"))}
    footprint = {path for path, text in everything.items() if name in path or name in text}
    staging = f"dbt_project/models/staging/{name}/"
    assert {path for path in footprint if not path.startswith(staging)} == {f"include/sources/{name}.yaml"}
    assert {path.removeprefix(staging) for path in footprint if path.startswith(staging)} == {
        f"_{name}.yml",
        f"stg_{name}__sessions.sql",
    }
    # Nor is anything of it known under another name.
    words = ("eshop", "e-shop", "clothing", "clickstream")
    assert {path for path, text in everything.items() if any(word in text.lower() for word in words)} == footprint


# Imports


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in the file; relative ones made absolute."""
    names = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def wrong_imports(folder: str, forbidden: set[str]) -> dict[str, set[str]]:
    found = {}
    for path in modules(folder):
        if wrong := tops(imports(path)) & forbidden:
            found[path.relative_to(ROOT).as_posix()] = wrong
    return found


def test_import_scan_sees_every_way_to_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "include" / "deep").mkdir(parents=True)
    file = tmp_path / "include" / "deep" / "a.py"
    file.write_text("import dags.x\ndef f():\n    from airflow import sdk\nfrom ..lake import read\nfrom . import b\n")
    assert tops(imports(file)) == {"dags", "airflow", "include"}
    assert {"include.lake", "include.deep.b", "airflow.sdk"} <= imports(file)


def test_include_imports_no_layer_above_it():
    assert len(modules("include")) > 10
    assert wrong_imports("include", {"dags", *LAYERS}) == {}


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_imports_neither_airflow_nor_another_layer(layer):
    assert modules(layer), f"{layer} has no module to look at"
    assert wrong_imports(layer, {"airflow", "dags", *LAYERS} - {layer}) == {}


def test_use_cases_do_not_import_each_other():
    cases = {path.parent.name for path in (ROOT / "ml_tasks").glob("*/__init__.py")} - {"lifecycle"}
    assert cases, "ml_tasks has no use case"
    wrong = {}
    for path in modules("ml_tasks"):
        own = path.relative_to(ROOT / "ml_tasks").parts[0]
        others = {name.split(".")[1] for name in imports(path) if name.startswith("ml_tasks.")} & (cases - {own})
        if own in cases and others:
            wrong[path.relative_to(ROOT).as_posix()] = others
    assert wrong == {}


def dag_files() -> list[Path]:
    found = [path for path in sorted((ROOT / "dags").glob("*.py")) if path.name != "__init__.py"]
    assert len(found) >= 6, "a folder without DAGs passes every test"
    return found


def test_dags_hold_wiring_only():
    allowed = {"airflow", "include", "__future__", "datetime", "json", "pathlib", *LAYERS}
    assert {path.name: extra for path in dag_files() if (extra := tops(imports(path)) - allowed)} == {}


# Documents


def test_every_dag_has_a_runbook_and_names_it():
    for path in dag_files():
        runbook = ROOT / "docs" / "runbooks" / f"{path.stem}.md"
        assert runbook.is_file(), f"{path.name} has no runbook"
        assert f"docs/runbooks/{path.stem}.md" in path.read_text(), f"{path.name} does not say where its runbook is"
        text = runbook.read_text()
        for heading in ("## What it does", "## What its failures look like", "## Rerun", "## True afterwards"):
            assert heading in text, f"{runbook.name} has no part {heading!r}"
        assert "--as-of" in text, f"{runbook.name} gives no command"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def documents() -> list[Path]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    assert len(found) > 8
    return found


def test_make_targets_that_documents_name_exist():
    named = {
        (path.name, target)
        for path in documents()
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert {("README.md", "run"), ("README.md", "test")} <= named
    assert {entry for entry in named if entry[1] not in make_targets()} == set()


def test_modules_that_documents_and_the_makefile_name_exist():
    sources = [*documents(), ROOT / "Makefile"]
    named = {
        name
        for path in sources
        for name in re.findall(r"(?:python3?|\$\(PY\)) -m ([a-z_]+(?:\.[a-z_]+)*)", path.read_text())
        if name.split(".")[0] in {"include", "benchmarks", *LAYERS}
    }
    assert len(named) > 8
    missing = []
    for name in sorted(named):
        path = ROOT / name.replace(".", "/")
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            missing.append(name)
    assert missing == []


def test_links_between_documents_lead_somewhere():
    dead, seen = [], 0
    for path in documents():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" in target:
                continue
            seen += 1
            if not (path.parent / target).exists():
                dead.append(f"{path.relative_to(ROOT)} -> {target}")
    assert seen > 8
    assert dead == []


def test_operations_page_lists_every_make_target():
    page = (ROOT / "docs" / "operations.md").read_text()
    assert {target for target in make_targets() if f"`make {target}" not in page} == set()


def test_settings_table_says_what_the_settings_are():
    from include.dictionary import settings_table

    page = (ROOT / "docs" / "operations.md").read_text()
    table = settings_table()
    assert "EMPORIUM_HOME" in table
    assert table in page, (
        "docs/operations.md is behind include/settings.py: run `python -m include.dictionary settings`"
    )


# Locks and linters


def requirement_names(text: str) -> set[str]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[\[=<>~!; ]", line)[0].lower().replace("_", "-") for line in lines if line}


def locked(text: str) -> dict[str, str]:
    """Package name -> its block in the lock."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {block.split("==")[0].lower(): block for block in blocks if re.match(r"[A-Za-z0-9._-]+==", block)}


@pytest.mark.parametrize("folder", [".", "containers"])
def test_lock_has_every_requirement_with_hashes(folder):
    lock = locked((ROOT / folder / "requirements.txt").read_text())
    asked = (ROOT / folder / "requirements.in").read_text()
    assert len(lock) > 100
    assert requirement_names(asked) - set(lock) == set()
    assert [name for name, block in lock.items() if "--hash=sha256:" not in block] == []
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", asked, re.MULTILINE):
        assert lock[name.lower()].startswith(f"{name.lower()}=={version} "), f"{name}: the lock is not at {version}"


def test_image_adds_to_the_lock_and_changes_nothing_in_it():
    def versions(text: str) -> set[str]:
        return set(re.findall(r"^([A-Za-z0-9._-]+==[^\s;]+)", text, re.MULTILINE))

    base = versions((ROOT / "requirements.txt").read_text())
    extra = versions((ROOT / "containers" / "requirements.txt").read_text())
    names = {entry.split("==")[0] for entry in base}
    assert {entry for entry in extra if entry.split("==")[0] in names} <= base
    assert any(entry.startswith("celery==") for entry in extra)


def test_pre_commit_uses_local_hooks_only():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert config["repos"]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith((".venv/bin/", "sh ", "make ")) for hook in hooks)


def test_lint_runs_every_linter_that_is_configured():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE).group(1)
    for tool in ("ruff check", "ruff format --check", "sqlfluff lint", "mypy"):
        assert tool in recipe
    assert {"ruff", "mypy"} <= set(config)


def test_python_finder_refuses_what_does_not_run(tmp_path):
    """A version manager's shim is on PATH and fails; the finder goes on, or says so in one sentence."""
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    finder = ROOT / ".ci" / "find-python"
    (tmp_path / "sh").symlink_to("/bin/sh")
    alone = subprocess.run(["/bin/sh", finder], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert alone.returncode == 1
    assert alone.stderr.count("\n") == 1
    assert "Python 3.11 or 3.12" in alone.stderr
    beside = {"PATH": str(tmp_path), "PYTHON": sys.executable}
    found = subprocess.run(["/bin/sh", finder], env=beside, capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)


def test_ci_script_is_executable_and_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("exec make test")
