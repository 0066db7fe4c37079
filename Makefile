# Every target sets itself up: a virtual environment in .venv with the locked versions of constraints.txt. The quickstart needs
# the library, and onnx to read its weights; tests and checks need every extra too, of which pydensecrf is compiled.
PYTHON ?= python3
# Where Python may not write bytecode, as in many containers, each command would compile its packages again, for ten seconds.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
# A process for each core, each with one thread: more of them wait for one another. Each takes half of the tests, so that
# files stay together with their shared fixtures, and then what is left of the other's.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
# uv where it could be installed, else pip.
INSTALL = $(BIN)/python -m $$($(BIN)/python -c "import uv" 2>/dev/null && echo uv) pip install --quiet \
	--constraint constraints.txt --editable

.PHONY: help quickstart test test-slow fuzz lint

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: .venv/library ## make data, fetch a backbone, train, evaluate
	$(BIN)/python scripts/quickstart.py

test: .venv/installed lint ## lint, type-check and test
	$(PYTEST) -m "not slow"

test-slow: .venv/installed ## whole flows, killed and resumed runs; the longest first
	$(PYTEST) -m slow

fuzz: .venv/installed ## 2,000 commands with odd words and damaged files, killed, or two at once
	EAGLE_FUZZ=2000 $(PYTEST) tests/fuzz

lint: .venv/installed ## ruff, mypy and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/library: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv || echo "without uv, pip installs: this takes some minutes longer"
	$(INSTALL) ".[onnx]"
	touch $@

.venv/installed: .venv/library
	$(INSTALL) ".[crf,export,demo,notebook,dev]"
	touch $@
