# `make demo` and `make test` are all that a new clone needs; both set up .venv first.
PYTHON ?= python3.11
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help setup demo test lint types floors check bench clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make .venv with everything the project needs

$(STAMP): pyproject.toml
	@echo "== Setting up $(VENV) with $$($(PYTHON) --version): a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== PyTorch ($(TORCH)); set TORCH to choose another build"
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$(TORCH)"
	@echo "== The project and its tools"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@echo "== Compiling the search kernels into their cache"
	@$(BIN)/python -m rag.retrieval.kernels
	@touch $(STAMP)

demo: setup  ## Build the sample bundle, serve it, ask it questions
	@$(BIN)/python -m eval.demo

test: setup  ## Run every check and every test
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest

check: lint types floors

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

floors: setup
	@$(BIN)/lint-imports

clean:  ## Remove .venv and what tools left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
