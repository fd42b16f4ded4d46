# The indexer. At the repository's root:  docker build -f docker/indexer.Dockerfile -t rag-indexer .
#   BASE_IMAGE   any image with Python 3.11 or later and its venv module; an AWS Deep Learning Container works
#   ACCELERATOR  cpu or cuda; cuda needs NVIDIA_VISIBLE_DEVICES=all beside it, and brings PyTorch
#   ENCODERS     encoders that the image holds ready for ONNX Runtime: 'default', folders, hub ids
#   PYTORCH      yes: any other sentence-transformers model can be named at run time too; for cpu the
#                image is without it, because ONNX Runtime embeds with the encoders that it holds
#   TORCH_SPEC, TORCH_INDEX_URL   which build of PyTorch a cpu image exports with; an empty URL is pip's own index
ARG BASE_IMAGE=python:3.11-slim

# The same as inference.Dockerfile's, so that both images share it in the build cache.
FROM ${BASE_IMAGE} AS environment
ARG ACCELERATOR=cpu
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/venv
COPY docker/locks/inference-${ACCELERATOR}.txt /build/inference.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip --python /opt/venv/bin/python install -q --no-compile --no-deps --require-hashes -r /build/inference.txt

FROM environment AS indexing
ARG ACCELERATOR=cpu
ARG PYTORCH=no
ARG TORCH_SPEC=torch==2.13.0
ARG TORCH_INDEX_URL=""
COPY docker/locks/indexer-${ACCELERATOR}.txt docker/locks/export.txt /build/
COPY docker/install-torch.sh /build/install-torch.sh
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip --python /opt/venv/bin/python install -q --no-compile --no-deps --require-hashes -r /build/indexer-${ACCELERATOR}.txt \
    && if [ "${PYTORCH}" = yes ]; then sh /build/install-torch.sh; fi

# Only what the exports depend on is copied: other code can change without making them again.
FROM indexing AS encoders
ARG ACCELERATOR=cpu
ARG ENCODERS=default
ARG TORCH_SPEC=torch==2.13.0
ARG TORCH_INDEX_URL=""
RUN --mount=type=cache,target=/root/.cache/pip sh /build/install-torch.sh
COPY rag/__init__.py rag/types.py rag/errors.py rag/sentences.py rag/devices.py /build/export/rag/
COPY rag/index/__init__.py rag/index/manifest.py /build/export/rag/index/
COPY rag/models /build/export/rag/models
COPY indexer/__init__.py indexer/exports.py /build/export/indexer/
COPY docker/export_encoders.py /build/export/
RUN /opt/venv/bin/python /build/export/export_encoders.py /opt/encoders ${ENCODERS}

FROM indexing AS trimmed
COPY docker/trim.sh /build/trim.sh
RUN sh /build/trim.sh /opt/venv

# The inner loops as machine code; Numba, which makes it, stays in this stage.
FROM trimmed AS kernels
COPY docker/locks/build.txt /build/build.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip install -q --no-deps --require-hashes -r /build/build.txt
COPY rag/__init__.py rag/types.py rag/errors.py /build/kernels/rag/
COPY rag/compiled /build/kernels/rag/compiled
COPY rag/index/__init__.py rag/index/kernels.py rag/index/counting_kernels.py /build/kernels/rag/index/
COPY rag/retrieval/__init__.py rag/retrieval/kernels.py rag/retrieval/compile.py /build/kernels/rag/retrieval/
RUN cd /build/kernels && /build/bin/python -m rag.retrieval.compile --library

FROM kernels AS package
COPY pyproject.toml README.md LICENSE /build/source/
COPY rag /build/source/rag
COPY indexer /build/source/indexer
COPY docker/install.sh docker/healthcheck.py /build/
RUN sh /build/install.sh

FROM ${BASE_IMAGE} AS runtime
COPY --from=trimmed /opt/venv /opt/venv
COPY --from=encoders /opt/encoders /opt/encoders
COPY --from=package /opt/rag /opt/rag
ARG ACCELERATOR=cpu
ARG NVIDIA_VISIBLE_DEVICES=""
RUN test "${ACCELERATOR}" = cpu || test -n "${NVIDIA_VISIBLE_DEVICES}" \
    || { echo "ACCELERATOR=${ACCELERATOR} also needs --build-arg NVIDIA_VISIBLE_DEVICES=all" >&2; exit 1; }
ENV PATH=/opt/rag/bin:/opt/venv/bin:${PATH} HOME=/tmp \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 \
    RAG_INDEXER_BACKEND=onnx RAG_INDEXER_ENCODER_CACHE=/opt/encoders \
    NVIDIA_VISIBLE_DEVICES=${NVIDIA_VISIBLE_DEVICES} NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/rag/bin/rag-container"]
CMD ["process"]
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
    com.amazonaws.sagemaker.capabilities.multi-models=true \
    org.opencontainers.image.title="rag-indexer" \
    org.opencontainers.image.description="Documents to one sealed bundle: FAISS, BM25, text and query encoder" \
    org.opencontainers.image.licenses="Apache-2.0"
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${REVISION}

# `make sbom`: what the environment of the image holds, as CycloneDX.
FROM package AS sbom
COPY docker/locks/sbom.txt /build/sbom.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /sbom && /sbom/bin/pip install -q --no-deps --require-hashes -r /build/sbom.txt \
    && /sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /sbom.json /opt/venv

FROM runtime
