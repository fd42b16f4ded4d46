# What exporting an encoder needs beside the indexer's lock; nothing for CUDA, whose lock has it all.
set -eu
[ "${ACCELERATOR}" = cpu ] || exit 0
pip="/build/bin/pip --python /opt/venv/bin/python"
$pip install -q --no-compile --no-deps --require-hashes -r /build/export.txt
# With what it depends on: a build for GPUs does not load without its libraries.
$pip install -q --no-compile ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$TORCH_SPEC"
