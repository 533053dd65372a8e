# One line per thing a person does; each target is what CI runs and, where there is one, the ./emporium command.
.DEFAULT_GOAL := help
.PHONY: help setup _jars run status stop test test-unit lint fix dbt dbt-clean docs bench lock compose-env
.NOTPARALLEL:
.DELETE_ON_ERROR:

PY := .venv/bin/python
UV := .venv/bin/uv
# Where Settings.jars_dir looks: another home has its own stamp.
JARS := $(or $(EMPORIUM_JARS),$(or $(EMPORIUM_HOME),.emporium)/jars)
LOCK := --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --quiet

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: .venv/.stamp _jars ## the Python environment and the Delta jars; nothing to do when they are there

# uv comes from the lock too, with its hashes; sync leaves exactly what the lock names. Compiled once here: a process that
# may not write beside the packages would compile all that it imports, three seconds of each start of dbt or Airflow.
.venv/.stamp: requirements.txt
	@echo "setup: Python environment in .venv from requirements.txt"
	@python=$$(sh .ci/find-python) && { $(PY) -c 'import pip, sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || "$$python" -m venv --clear .venv; }
	@awk '/^uv==/ {found = 1} found {print} found && !/\\$$/ {exit}' requirements.txt > .venv/uv.txt
	@$(PY) -m pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all: -r .venv/uv.txt
	@$(UV) pip sync --quiet --compile-bytecode --python $(PY) --require-hashes requirements.txt
	@touch $@

# No file target: the folder is the home's, and its path may hold a space.
_jars: .venv/.stamp
	@[ "$(JARS)/.stamp" -nt include/services/jars.sha256 ] || { \
	  echo "setup: Delta jars" && $(PY) -m include.services.jars && touch "$(JARS)/.stamp"; }

run: setup ## a night: SOURCE=demo|olist|online_retail|... DATA=folder AS_OF=YYYY-MM-DD FROM=YYYY-MM-DD
	@exec ./emporium run $(if $(SOURCE),--source "$(SOURCE)") $(if $(DATA),--data "$(DATA)") \
	  $(if $(AS_OF),--as-of "$(AS_OF)") $(if $(FROM),--from "$(FROM)")

status: ## what is up, the last partitions, what failed
	@exec ./emporium status

stop: ## stop everything that runs; the data stays
	@if [ -x $(PY) ]; then exec ./emporium down; else echo "Nothing to stop: there is no .venv here."; fi

test: setup lint ## lint, then unit, DAG, integration and end-to-end tests
	@exec $(PY) -m pytest tests/unit tests/dags tests/integration tests/e2e

test-unit: setup ## the tests that need no service, no JVM and no trained model
	@exec $(PY) -m pytest tests/unit tests/dags -q

lint: setup ## ruff, sqlfluff, mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m sqlfluff lint --disable-progress-bar dbt_project/models dbt_project/tests
	$(PY) -m mypy

fix: setup ## what the linters can repair themselves
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(PY) -m sqlfluff fix --disable-progress-bar dbt_project/models dbt_project/tests

# ARGS alone is a command of dbt's against production; with SELECT it is more options.
dbt: setup ## what changed, or SELECT=fact_order+, into a schema of your own; ARGS="test --select fact_order" as it is
	@exec $(PY) -m $(if $(SELECT)$(DAYS),include.analyst,$(if $(ARGS),include.dbt,include.analyst)) \
	  $(if $(SELECT),--select "$(SELECT)") $(if $(DAYS),--days "$(DAYS)") $(ARGS)

dbt-clean: setup ## drop the schema of your own
	@exec $(PY) -m include.analyst --clean

docs: setup ## the models' documentation and docs/data-dictionary.md from the running warehouse, shown in a browser
	@exec $(PY) -m include.docs $(ARGS)

bench: setup ## the measurements of benchmarks/
	@exec $(PY) -m benchmarks $(ARGS)

lock: .venv/.stamp ## compile the locks anew from requirements.in
	$(UV) pip compile requirements.in -o requirements.txt $(LOCK)
	$(UV) pip compile containers/requirements.in -c requirements.txt -o containers/requirements.txt $(LOCK)

compose-env: ## the .env that docker-compose.yaml needs: generated secrets, mode 0600
	@exec "$$(sh .ci/find-python)" containers/make_env.py
