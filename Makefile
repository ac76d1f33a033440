PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo serve test matrix lint format proto bench clean

help:            ## this list
	@sed -nE 's/^([a-z]+): .*## +/  make \1\t/p' $(MAKEFILE_LIST)

# recbole brings the 100,000 MovieLens ratings of the demo as data files. It is never imported, so it comes alone.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps recbole==1.2.1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/.installed    ## train, export, serve and steer on real data, in the terminal
	@deploy/demo.sh

serve: .venv/.installed   ## keep the demo's server running
	@deploy/demo.sh serve

test: .venv/.installed    ## the test suite without the matrix, on all cores up to four
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile

matrix: .venv/.installed  ## every recommender with every SAE, exported and served (5 minutes)
	$(BIN)/pytest -m matrix

lint: .venv/.installed    ## format, style, types, layers, proto
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	cd proto && ../$(BIN)/buf lint

format: .venv/.installed  ## put the code in shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

proto: .venv/.installed   ## generate code and docs/api.md from the .proto files, and the sync client
	$(BIN)/python proto/generate.py
	$(BIN)/python proto/reference.py

bench: .venv/.installed   ## measure serving, and write it to .bench/performance.md (15 minutes)
	$(BIN)/python -m benchmarks.serving --out .bench

clean:                    ## remove the demo's and the bench's files and the virtual environment
	rm -rf .demo .bench .venv
