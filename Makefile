# Every target sets itself up: a virtual environment in .venv with the locked versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-slow lint

quickstart: .venv/installed
	$(BIN)/python scripts/quickstart.py

test: .venv/installed lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[crf,export,dev]"
	touch $@
