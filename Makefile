# Everything a developer does, each target by itself: the ones that need the environment make it.
# On a new machine this needs Python, make and the package index that pip is set up for.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOCK_VENV := build/lock-venv
BENCH_VENV := build/bench-venv

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run test check format bench runbooks restore overload bench-full kills simulate fleet cluster faults coverage lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## Make .venv with everything in it; quick when nothing changed.

# The stamp is written last, so an interrupted install is done again. Every file comes from the
# index by its hash; the project itself is built with what the lock brought, asking nobody.
$(INSTALLED): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Orderkeep needs Python 3.11 or newer, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)" >&2; \
	  echo "Name a newer one, for example: make install PYTHON=python3.12" >&2; \
	  exit 2; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Python's venv module is missing; Debian and Ubuntu have it in the package python3-venv." >&2; \
	  exit 2; }
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  --requirement requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
	  --no-build-isolation --editable .
	@touch $@

run: install ## Start the service, by default on port 8080 with its data in ./orderkeep-data.
	@exec $(BIN)/orderkeep run

# Two processes at once: the longer tests wait for servers more than they compute. Whoever is through
# first takes the last half of what the other has left.
test: install ## Run every test; PYTEST_ARGS="-k word" for some of them.
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(PYTEST_ARGS)

check: install ## Hold the code to its rules: lint, format, types, imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Put the code into its format, and mend what the linter can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install $(BENCH_VENV)/.installed ## Measure, for ten minutes at most; BENCH_ARGS="orders_on_servers".
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-full: install $(BENCH_VENV)/.installed ## Measure for as long as the answers need; BENCH_ARGS as above.
	$(BIN)/python -m bench --full $(BENCH_ARGS)

# What the peers in bench/peers are made of; the service and its tests need nothing of it.
$(BENCH_VENV)/.installed: requirements-bench.lock
	@$(PYTHON) -m venv $(BENCH_VENV)
	@echo "Installing into $(BENCH_VENV) ..."
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  --requirement requirements-bench.lock
	@touch $@
overload: install ## Offer five times the orders that can be taken, for two minutes; OVERLOAD_ARGS="--seconds 30".
	$(BIN)/python -m bench.overload_on_servers $(OVERLOAD_ARGS)

runbooks: install ## Follow every page of docs/runbooks/ as printed, on real servers.
	RUNBOOKS=1 $(BIN)/python -m pytest tests/acceptance/test_runbooks.py

restore: install ## Restore a backup beside a broker that knows more, and one that knows less.
	RESTORE=1 $(BIN)/python -m pytest tests/acceptance/test_restore.py

kills: install ## Kill a busy shop fifty times, then look whether anything is lost; KILLS_ARGS="--seed 7".
	$(BIN)/python -m tests.acceptance.kill_runner $(KILLS_ARGS)

simulate: install ## Run a thousand simulated worlds of faults, for ten minutes at most; SIMULATE_ARGS="--seed 7 --trace".
	$(BIN)/python -m tests.simulation $(SIMULATE_ARGS)

fleet: install ## Load several processes for a quarter of an hour and take their servers away; FLEET_ARGS="--only broker".
	$(BIN)/python -m tests.acceptance.fleet_runner $(FLEET_ARGS)

cluster: install ## Kill the leading node of a RabbitMQ cluster under load, three times; CLUSTER_ARGS="--seed 7".
	$(BIN)/python -m tests.acceptance.fleet_cluster $(CLUSTER_ARGS)

faults: install ## Kill, cut, stop and fill everything under a shop for forty minutes; FAULTS_ARGS="--seed 7".
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)

coverage: install ## Run every test and show which lines and branches none of them reached.
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/coverage report

# Resolved with the oldest Python that is supported: what only newer ones need would be missing
# otherwise. Run it after every change of a dependency, and commit all three files.
lock: ## Choose the newest allowed versions again and pin them by hash (needs Python 3.11).
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "Locks are made with Python 3.11: make lock PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet 'pip-tools>=7.6,<8'
	$(LOCK_VENV)/bin/python -c 'import tomllib; \
	  project = tomllib.load(open("pyproject.toml", "rb")); \
	  groups = project["dependency-groups"]; \
	  [open(f"build/{name}.in", "w").write("\n".join(groups[name])) for name in ("dev", "bench")]'
	$(PIP_COMPILE) --output-file requirements.lock pyproject.toml
	$(PIP_COMPILE) --constraint requirements.lock --output-file requirements-dev.lock \
	  pyproject.toml build/dev.in
	$(PIP_COMPILE) --constraint requirements.lock --output-file requirements-bench.lock \
	  build/bench.in

# No address of an index, and nothing of this machine's set-up of pip, goes into a lock.
PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(LOCK_VENV)/bin/pip-compile --quiet --upgrade \
  --generate-hashes --strip-extras --allow-unsafe --no-emit-options --no-emit-index-url \
  --no-emit-find-links --no-emit-trusted-host

clean: ## Remove what the other targets made, but no data.
	rm -rf $(VENV) build dist .coverage .hypothesis .import_linter_cache .mypy_cache \
	  .pytest_cache .ruff_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
