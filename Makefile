# Everything lives in .venv, made here: `make demo` and `make test` are all the set-up there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
SEEDS  ?= 20

export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test check bench chaos clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# One stamp an extra: `make demo` installs no test tools.
$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable ".[test,check,peers]"
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	$(BIN)/rheed-ingest demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos --seeds $(SEEDS)

clean:
	rm -rf $(VENV)
