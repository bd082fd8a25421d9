PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: help train test test-all lint

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install -q --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

train: .venv/.stamp  ## train, sample and score the default GEBM; ARGS='seed=1 ...' passes overrides
	$(BIN)/python train.py $(ARGS)

test: .venv/.stamp  ## the tests, without the slow ones
	$(BIN)/python -m pytest -m 'not slow' $(ARGS)

test-all: .venv/.stamp  ## all tests
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
