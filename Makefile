# `make demo` and `make test` are all that a new clone needs; both set up .venv first.
PYTHON ?= python3.11
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# The container engine's command: docker, podman, or a script with the same verbs.
CONTAINER_ENGINE ?= docker
export CONTAINER_ENGINE
ACCELERATOR ?= cpu
# Passed to every image build, such as --no-cache.
CONTAINER_BUILD_FLAGS ?=
TORCH_INDEX_URL ?=
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' rag/__init__.py)
REVISION = $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
TAG := $(if $(filter cpu,$(ACCELERATOR)),,:$(ACCELERATOR))
BUILD = $(CONTAINER_ENGINE) build $(CONTAINER_BUILD_FLAGS) --build-arg ACCELERATOR=$(ACCELERATOR) \
	--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	$(if $(filter cpu,$(ACCELERATOR)),,--build-arg NVIDIA_VISIBLE_DEVICES=all)
BUILD_INDEXER = $(BUILD) --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL)
.PHONY: help setup demo test lint types floors check bench clean images sizes sbom tables locks \
	test-containers sagemaker-local train-deploy follow-demo

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
	@$(BIN)/python -m rag.retrieval.compile
	@touch $(STAMP)

demo: setup  ## Build the sample bundle, serve it, ask it questions
	@$(BIN)/python -m eval.demo

test: setup  ## Run every check and every test, but for those of the images
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest --ignore=tests/container

test-containers: setup  ## Run the tests of the images that `make images` built
	@$(BIN)/python -m pytest tests/container

check: lint types floors

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

floors: setup
	@$(BIN)/lint-imports

images:  ## Build rag-inference and rag-indexer; ACCELERATOR=cuda tags them :cuda
	$(BUILD) -f docker/inference.Dockerfile -t rag-inference$(TAG) .
	$(BUILD_INDEXER) -f docker/indexer.Dockerfile -t rag-indexer$(TAG) .

sizes:  ## Print the images' sizes, layer by layer
	@for image in rag-inference rag-indexer; do echo "$$image"; docker/sizes.sh $$image$(TAG); done

sbom:  ## Write what the images' environments hold to dist/sbom-*.json (CycloneDX)
	$(BUILD) -f docker/inference.Dockerfile --target sbom -t rag-inference-sbom .
	$(BUILD_INDEXER) -f docker/indexer.Dockerfile --target sbom -t rag-indexer-sbom .
	@mkdir -p dist
	@for name in inference indexer; do \
	  id=$$($(CONTAINER_ENGINE) create rag-$$name-sbom); \
	  $(CONTAINER_ENGINE) cp $$id:/sbom.json dist/sbom-$$name.json; \
	  $(CONTAINER_ENGINE) rm $$id >/dev/null; echo "dist/sbom-$$name.json"; \
	done

tables: setup  ## Write the table of settings into the READMEs
	@$(BIN)/python docker/settings_tables.py

locks: setup  ## Pin and hash what the images install; UPGRADE=--upgrade takes the newest releases
	@PATH=$(abspath $(BIN)):$$PATH docker/locks/compile.sh $(UPGRADE)

sagemaker-local: setup  ## Run an image as SageMaker does: ARGS="serve rag-inference --model ./bundle"
	@$(BIN)/python -m sagemaker_local $(or $(ARGS),--help)

train-deploy: setup  ## Documents on S3, a training job, its model.tar.gz deployed, an answer
	@$(BIN)/python -m sagemaker_local.train_deploy

follow-demo: setup  ## Documents on S3, a processing job, a service that follows it, a swap under load
	@$(BIN)/python -m sagemaker_local.follow

clean:  ## Remove .venv and what tools left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
