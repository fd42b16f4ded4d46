#!/usr/bin/env bash
# Pins and hashes what each image installs: one lock per image and accelerator, from pyproject.toml.
#   compile.sh                 what is new in pyproject.toml; other pins stay
#   compile.sh --upgrade       the newest releases
# Numba is in build.txt alone: images hold what it compiled (rag/compiled/), so that they need none.
# PyTorch is left out of export.txt: which build of it is right depends on where the image is built
# (TORCH_SPEC and TORCH_INDEX_URL in indexer.Dockerfile). The CUDA locks pin PyPI's own build.
set -euo pipefail
cd "$(dirname "$0")/../.."
locks=docker/locks

compile() {
  local name=$1; shift
  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate \
    --custom-compile-command "make locks" --output-file "$locks/$name.txt" "${upgrade[@]}" "$@"
}

upgrade=("$@")
compiled=(--no-emit-package numba --no-emit-package llvmlite)
compile inference-cpu pyproject.toml "$locks/inference.in" --extra cpu --extra korean --extra aws --extra otel "${compiled[@]}"
compile inference-cuda pyproject.toml "$locks/inference.in" --extra gpu --extra korean --extra aws --extra otel \
  "${compiled[@]}"
compile indexer-cpu pyproject.toml --extra cpu --extra korean --extra aws --extra otel --extra parsing \
  --constraint "$locks/inference-cpu.txt" "${compiled[@]}"
compile indexer-cuda pyproject.toml --extra gpu --extra korean --extra aws --extra otel --extra parsing --extra export \
  --constraint "$locks/inference-cuda.txt" "${compiled[@]}"
compile export pyproject.toml --extra cpu --extra korean --extra aws --extra otel --extra parsing --extra export \
  --constraint "$locks/indexer-cpu.txt" --no-emit-package torch --no-emit-package triton "${compiled[@]}" \
  $(grep -oE '^(nvidia|cuda)-[a-z0-9-]+' "$locks/indexer-cuda.txt" | sed 's/^/--no-emit-package /')
compile build "$locks/build.in" --constraint "$locks/inference-cpu.txt"
compile sbom "$locks/sbom.in"
