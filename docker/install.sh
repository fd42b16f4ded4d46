# Installs the package from /build/source into /opt/rag: code, commands, and the compiled kernels
# that /build/kernels has.
set -eu
export PYTHONDONTWRITEBYTECODE=1
/build/bin/pip wheel -q --no-deps --no-build-isolation --no-index -w /build/wheels /build/source
/build/bin/pip --python /opt/venv/bin/python install -q --no-compile --no-deps --no-index \
  --target /opt/rag/lib /build/wheels/*.whl
mv /opt/rag/lib/bin /opt/rag/bin
/opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/rag/lib
cp -r /build/kernels/rag/compiled/library /opt/rag/lib/rag/compiled/
# What the kernels or the trimmed environment lack shows here, not in production.
/opt/venv/bin/python -m rag.retrieval.compile
/opt/venv/bin/python -c 'import rag.service.app'
if [ -d /opt/rag/lib/indexer ]; then
  /opt/venv/bin/python -c 'import indexer.build, indexer.parsing, rag.service.app'
fi
cp /build/healthcheck.py /opt/rag/healthcheck.py
chmod -R a+rX /opt/rag
