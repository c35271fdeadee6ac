# Two commands matter: `make demo` and `make test`. Each sets up .venv itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock
export DAGSTER_HOME ?= $(CURDIR)/dagster_home
# the tests start hundreds of processes: let Python keep what it has compiled
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo dev test test-all test-engines test-dagster lint bench wheel lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/installed  ## rehearse with a simulated service: a table of delivery rates in a minute
	@$(BIN)/usms demo

dev: $(VENV)/installed  ## the same data, with Dagster's page open on port 3000
	@$(BIN)/usms demo --dev

# one process more than there are cores, for many tests wait
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST_RUN := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 5 --dist loadfile

test: $(VENV)/installed-dev  ## the tests that take minutes: every law once, nothing but PyPI's packages
	@$(PYTEST_RUN) -m 'not long and not services' $(PYTEST)

test-all: $(VENV)/installed-dev  ## every test, in half an hour; MariaDB and Chromium must be installed
	@$(PYTEST_RUN) $(PYTEST)

test-engines: $(VENV)/installed-dev  ## deployments on PostgreSQL and Celery, dbt, the figures on Spark, ClickHouse and Polars; needs RabbitMQ, Redis and Java 17
	@$(INSTALL) -e '.[engines]'
	@$(PYTEST_RUN) -m engines $(PYTEST)

# tomlkit: the oldest needs one that is older than the pinned
DAGSTERS := $(shell sed -n 's/.*"dagster-dg-cli>=\(.*\),\(<[0-9.]*\)".*"dagster-w.*/==\1 \2/p' pyproject.toml)
test-dagster: $(VENV)/installed-dev  ## the component's tests with the oldest and the newest Dagster allowed
	@mkdir -p build && sed -E '/^(dagster|tomlkit)/d' requirements.lock >build/others.txt
	@for version in $(foreach one,$(DAGSTERS),'$(one)'); do \
	  $(PYTHON) -m venv --clear build/dagster && \
	  build/dagster/bin/python -m pip install --quiet --disable-pip-version-check \
	    -c build/others.txt -e '.[dev]' "dagster-dg-cli$$version" && \
	  build/dagster/bin/python -m pip list | grep '^dagster ' && \
	  build/dagster/bin/python -m pytest -n $(WORKERS) -m 'not long' \
	    tests/test_dagster.py tests/test_component.py || exit 1; \
	done

lint: $(VENV)/installed-dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench  ## measure beside others; writes benchmarks/RESULTS.md, in an hour
	@$(BIN)/python -m benchmarks $(BENCH)

wheel: $(VENV)/installed-dev  ## build the wheel and try it in an environment of its own
	@rm -rf dist build/smoke
	@$(BIN)/python -m build --wheel >/dev/null
	@$(PYTHON) -m venv build/smoke
	@build/smoke/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock dist/*.whl
	cd build && smoke/bin/usms --version && smoke/bin/usms demo --messages 500 --dir smoke/demo

lock: $(VENV)/installed-dev  ## pin today's versions in requirements.lock (with the oldest Python 3.11)
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --no-emit-options \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate \
	  --all-extras --output-file requirements.lock pyproject.toml

clean:  ## remove what the commands above made
	rm -rf $(VENV) dist build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	@$(PYTHON) -m venv $(VENV)
	@# older ones can't resolve extras under constraints
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25'

$(VENV)/installed: pyproject.toml requirements.lock | $(VENV)/bin/python
	@echo "Installing into $(VENV) (once) …"
	@$(INSTALL) -e '.[dagster-ui]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml requirements.lock | $(VENV)/bin/python
	@echo "Installing into $(VENV) (once) …"
	@$(INSTALL) -e '.[dev,mysql,notebooks]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: pyproject.toml requirements.lock | $(VENV)/installed-dev
	@$(INSTALL) -e '.[bench]'
	@touch $@
