# Everything runs in .venv, which is made on first use from pyproject.toml; it takes python3 (3.11 or newer),
# make and git. PYTHON=python3.12 makes it from another Python; WORKERS=4 runs more tests at once.

PYTHON ?= python3
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TESTS := $(BIN)/python -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-environments test-full check lint types coverage bench clean

help:
	@echo "make demo       real SDKs against a provider on this machine, and the report of what they used"
	@echo "make test       the tests, in a few minutes"
	@echo "make test-full  and the long ones, with older SDKs and newer Pythons too"
	@echo "make check      lint, types, and how much of the code the tests reach"
	@echo "make bench      what metering and delivery cost, beside the same without them"
	@echo "make clean      remove everything that these made"

demo: $(VENV)/demo.installed
	$(BIN)/python -m cmdrdata_transport demo

test: $(VENV)/test.installed
	$(TESTS) -m "not slow"

# These keep a machine busy by themselves.
test-slow: $(VENV)/test.installed
	$(BIN)/python -m pytest -n 2 -m slow

# Each has a virtual environment of its own, below .envs.
test-environments: $(VENV)/test.installed
	$(BIN)/python tests/environments/run.py

test-full:
	$(MAKE) --no-print-directory test
	$(MAKE) --no-print-directory test-slow
	$(MAKE) --no-print-directory test-environments

check: lint types coverage

lint: $(VENV)/check.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/check.installed
	$(BIN)/mypy
	$(BIN)/pyright

# A process that a test kills leaves half a data file, which `combine` names and leaves alone.
coverage: $(VENV)/check.installed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) -q -m "not slow"
	$(BIN)/coverage combine --quiet
	@rm -f .coverage.*
	$(BIN)/coverage report

# The second needs a PostgreSQL server, the machine's or the one that the tests' dependencies bring.
bench: $(VENV)/test.installed
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/delivery.py

clean:
	rm -rf $(VENV) .envs .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

# A stamp says what is installed, so that a second run starts at once. Each stamp covers the ones before it.
$(VENV)/pip.installed:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/demo.installed: pyproject.toml | $(VENV)/pip.installed
	$(PIP) install --quiet --editable ".[demo]"
	@touch $@

$(VENV)/test.installed: pyproject.toml | $(VENV)/pip.installed
	$(PIP) install --quiet --editable . --group test
	@touch $(VENV)/demo.installed $@

$(VENV)/check.installed: pyproject.toml | $(VENV)/pip.installed
	$(PIP) install --quiet --editable . --group test --group check
	@touch $(VENV)/demo.installed $(VENV)/test.installed $@
