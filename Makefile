# The verbs of the project. `make demo` and `make test` work on a fresh checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
BENCH := .cache/bench-venv

.PHONY: help setup demo test lint types docs bench soak check lock clean

help:  ## show the verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "DeepForge needs Python 3.11 or newer; say which one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.done: requirements/demo.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/demo.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/test.done: requirements/test.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/test.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/demo.done

setup: $(VENV)/test.done  ## make .venv with everything that the tests need

demo: $(VENV)/demo.done  ## run the handwritten digits pipeline, end to end
	$(BIN)/deepforge demo

test: setup  ## all that CI runs: lint, types, tests
	$(MAKE) --no-print-directory lint types
	@.ci/install-webgme || echo "the tests say what they could not do without it" >&2
	@.ci/install-sciserver || echo "the tests say what they could not do without it" >&2
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy --strict
	$(BIN)/mypy

check: test  ## the same as test

bench: setup $(BENCH)/bench.done  ## speed and memory, as ratios measured side by side
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

SOAK_MINUTES ?= 61

soak: setup  ## a worker through SOAK_MINUTES without network, on a real clock
	cd tests && ../$(BIN)/python -m soak.outage --minutes $(SOAK_MINUTES)

$(BENCH)/bench.done: requirements/bench.txt | $(BIN)/python
	$(BIN)/python -m venv $(BENCH)
	$(BENCH)/bin/pip --disable-pip-version-check --quiet install --require-hashes -r requirements/bench.txt
	benchmarks/install-s5cmd || echo "without s5cmd"
	@touch $@

docs: setup  ## check that the documentation is true
	$(BIN)/python -m pytest tests/house -k docs

lock:  ## write the hashed requirement files anew
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --extra demo pyproject.toml requirements/build.in -o requirements/demo.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --extra demo --extra testing -c requirements/demo.txt pyproject.toml requirements/build.in requirements/test.in -o requirements/test.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header requirements/bench.in -o requirements/bench.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header requirements/interop.in -o requirements/interop.txt

clean:  ## remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
