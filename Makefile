# Every target makes its own environment first; that takes under a second when nothing changed.
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTHON := $(BIN)/python
PORT ?= 8000
.PHONY: help setup demo serve test bars check fmt train lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make .venv from the lock (CUDA=1 for the GPU build)
	@bash scripts/setup

demo: setup  ## start the server, one real request per strategy, stop it
	@$(PYTHON) -m clients.demo

serve: setup  ## the server on http://127.0.0.1:$PORT (8000)
	@$(BIN)/satisfice serve --port $(PORT)

test: setup  ## the test suite
	@$(PYTHON) -m pytest -q --durations=15 $(ARGS)

bars: setup  ## make every figure of docs/benchmarks.md again
	@bash scripts/bars $(ARGS)

# All four run even if one fails: one round shows every fault.
check: setup  ## ruff, mypy, import-linter
	@failed=; \
	for tool in "ruff check ." "ruff format --check ." mypy "lint-imports --no-cache"; do \
	    $(BIN)/$$tool || failed="$$failed [$$tool]"; \
	done; \
	[ -z "$$failed" ] || { echo "check failed:$$failed"; exit 1; }

fmt: setup  ## sort imports, format
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

train: setup  ## train the miniature models again (15 minutes on two cores)
	@$(PYTHON) -m testbed train

lock: setup  ## resolve requirements/ anew
	@$(PYTHON) scripts/lock

clean:  ## remove .venv and everything that was built
	@rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
