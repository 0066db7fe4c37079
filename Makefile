# Every target sets itself up: a virtual environment in .venv with the locked versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# A process for each core, each with one thread: more of them wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

.PHONY: quickstart test test-slow lint

quickstart: .venv/installed
	$(BIN)/python scripts/quickstart.py

test: .venv/installed lint
	$(PYTEST) -m "not slow"

test-slow: .venv/installed
	$(PYTEST) -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[crf,export,dev]"
	touch $@
