# Two commands do their own set-up on a machine that has only Python >= 3.11 and make:
#   make demo    the whole loop on real data, in minutes; ends with out/demo/report.html
#   make test    every test, the demo included
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
UV := .tools/uv/bin/uv
DEMO_OUT ?= out/demo
DEMO_ARGS ?=
TEST_ARGS ?=
# Test files run beside each other, one process for each processor; TEST_JOBS=0 runs all in one, as pytest itself does.
TEST_JOBS ?= auto

# The first interpreter that works and that the lock file covers. Override with: make setup PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 \
	&& { command -v $$p; break; }; done)

.PHONY: help setup demo test test-long check format bench bench-setup lock clean

help:  ## what each command does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: $(VENV)/.installed .tools/object-store/.installed  ## build .venv with all that the demo, the tests and our own benches need

demo: setup  ## train, convert, sign, roll out, break, recover, find drift; writes out/demo/report.html
	@$(BIN)/python -m examples.smartwatch --out $(DEMO_OUT) $(DEMO_ARGS)

test: setup  ## every test but the long matrices; shows the slowest
	@echo "==> tests (the slowest are listed at the end; the demo alone takes about 5 minutes)"
	@$(BIN)/python -m pytest -m "not long" --ignore tests/packaging -n $(TEST_JOBS) --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder $(TEST_ARGS)

test-long: setup  ## the longer matrices and fuzz runs
	@$(BIN)/python -m pytest -m long $(TEST_ARGS)

check: setup  ## ruff, mypy, import contracts, and a built wheel in a clean environment
	@echo "==> ruff" && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "==> mypy (strict on edge_runtime and model_server)" && $(BIN)/mypy
	@echo "==> import contracts" && $(BIN)/lint-imports --no-cache
	@echo "==> a built wheel in a clean environment" && $(BIN)/python -m pytest -q --durations=0 tests/packaging

format: setup  ## let ruff rewrite the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: setup  ## the benchmarks that exist; BENCH=name for one
	@$(BIN)/python -m bench $(or $(BENCH),all)

bench-setup: setup  ## helper environments (PyTorch, onnx2tf), peers, and the real models that benches and test-long use
	@$(BIN)/python -m converters.environments
	@$(BIN)/python -m bench.real_models
	@$(BIN)/python -m bench.peers_delta.tools

lock: $(UV)  ## resolve the dependencies again and rewrite the lock files
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--upgrade pyproject.toml --extra examples --extra postgres --extra s3 --extra hsm --group dev -o requirements.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--upgrade --group object-store -o object-store.lock

clean:  ## remove what was built, but not out/
	@rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(UV): tools.lock
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 with venv and ensurepip was found (Debian and Ubuntu: \
	apt-get install python3-venv). Or name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@echo "==> the installer (uv, pinned by hash) for $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .tools/uv
	@.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools.lock
	@touch $(UV)

.tools/object-store/.installed: $(UV) object-store.lock
	@test -x .tools/object-store/bin/python || $(UV) venv --quiet --python "$(PYTHON)" .tools/object-store
	@$(UV) pip sync --quiet --compile-bytecode --require-hashes --python .tools/object-store/bin/python object-store.lock
	@touch $@

$(VENV)/.installed: $(UV) requirements.lock pyproject.toml
	@echo "==> packages into $(VENV) (about 2 GB; half a minute with a warm cache, some minutes without)"
	@test -x $(BIN)/python || $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	@$(UV) pip sync --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@
