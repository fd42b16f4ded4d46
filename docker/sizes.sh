#!/usr/bin/env bash
# Prints an image's size, layer by layer, largest first:  sizes.sh IMAGE
set -euo pipefail
engine=${CONTAINER_ENGINE:-docker}
$engine image inspect --format '{{.Size}}' "$1" | awk '{ printf "%7.1f MB in all\n", $1 / 1e6 }'
$engine history --no-trunc --format '{{.Size}}|{{.CreatedBy}}' "$1" |
  sed -E 's/^0 ?B\|.*//; s/\/bin\/sh -c (#\(nop\) )?//; s/(dir|file|multi):[0-9a-f]+ in //' |
  grep -v '^$' | awk -F'|' '{ gsub(/  +/, " "); printf "%10s  %.70s\n", $1, $2 }'
