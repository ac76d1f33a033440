PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint format proto bench clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/: .*## +/	/'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

test: $(VENV)/.installed      ## every test
	$(BIN)/pytest

lint: $(VENV)/.installed      ## format, lint, types, layers, proto
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint

format: $(VENV)/.installed    ## put the code in shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

proto: $(VENV)/.installed     ## generate the code beside the .proto files
	$(BIN)/python proto/generate.py
