# Every target does its own set-up. `make` alone lists them.
#
#   PYTHON=python3.12      interpreter for the environment (default: the first of 3.11 or newer)
#   PORT=8000              where `make run` serves, on loopback
#   ONCE=1                 `make run` ends after the first picture
#   JOBS=4                 tests in so many processes (default: 2, of one thread each)
#   ARGS="-k seed"         more arguments for pytest
#   TORCH_INDEX_URL=...    another package index for torch alone, such as one with CPU wheels only

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export VENV := .venv
export PYTHON
export TORCH_INDEX_URL
PORT ?= 8000
JOBS ?= 2
BIN := $(VENV)/bin
SETUP_INPUTS := pyproject.toml constraints.txt tools/setup.sh

.NOTPARALLEL:
.PHONY: help run test coverage check fix docs setup font postgres browser peers hooks clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: $(VENV)/.ready-serve  ## serve on loopback, ask for one picture, keep serving
	@$(BIN)/fewstroke demo --port $(PORT) $(if $(ONCE),--once)

coverage: COVER := --cov --cov-report= --cov-fail-under=0
coverage: COVER_ALL := --cov --cov-append --cov-report=term
test: $(VENV)/.ready-dev font postgres browser  ## run all tests
coverage: $(VENV)/.ready-dev font postgres browser  ## run all tests and say which lines they miss
test coverage:
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser" $(COVER) -n $(JOBS) --dist loadfile \
	  --no-loadscope-reorder $(ARGS)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser $(COVER_ALL) \
	  $(ARGS) || [ $$? -eq 5 ]  # 5: ARGS chose no test in the browser
	@echo "make $@: all tests passed."

check: $(VENV)/.ready-dev  ## format, lint, types, layers, sizes, generated docs
	@tools/check.sh

fix: $(VENV)/.ready-dev  ## format, mend what the linter can mend, rewrite generated docs
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/python tools/reference.py
	@$(BIN)/python tools/performance.py
	@$(BIN)/python tools/widths.py
	@echo "make fix: done. What is left, make check says."

docs: $(VENV)/.ready-dev  ## rewrite docs/reference.md, docs/performance.md and docs/widths.md
	@$(BIN)/python tools/reference.py
	@$(BIN)/python tools/performance.py
	@$(BIN)/python tools/widths.py

setup: $(VENV)/.ready-dev  ## set up for development, and nothing else
	@echo "make setup: ready. Commands are in $(BIN)."

peers:  ## set up .venv-peers, what benchmarks/bench_backends.py compares with
	@VENV=.venv-peers tools/setup.sh peers

hooks: $(VENV)/.ready-dev  ## run the gates before every git commit
	@$(BIN)/pre-commit install

clean:  ## remove the environment and all caches
	@rm -rf $(VENV) .venv-peers *.egg-info build dist htmlcov .coverage .coverage.* .hypothesis
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@echo "make clean: done."

font:  ## install the emoji font, which scenes are drawn with
	@tools/setup.sh font

postgres:
	@tools/setup.sh postgres

browser:
	@tools/setup.sh browser

$(VENV)/.ready-dev: $(SETUP_INPUTS)
	@tools/setup.sh dev
	@touch $(VENV)/.ready-serve $@

$(VENV)/.ready-serve: $(SETUP_INPUTS)
	@tools/setup.sh serve
	@touch $@
