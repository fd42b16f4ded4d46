# The service. At the repository's root:  docker build -f docker/inference.Dockerfile -t rag-inference .
#   BASE_IMAGE   any image with Python 3.11 or later and its venv module; an AWS Deep Learning Container works
#   ACCELERATOR  cpu (no PyTorch) or cuda; cuda needs NVIDIA_VISIBLE_DEVICES=all beside it
# What changes often comes last: a change of code rebuilds the stage `package` and one small layer,
# one of an inner loop also the stage `kernels`.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS environment
ARG ACCELERATOR=cpu
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/venv
COPY docker/locks/inference-${ACCELERATOR}.txt /build/inference.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /build/bin/pip --python /opt/venv/bin/python install -q --no-compile --no-deps --require-hashes -r /build/inference.txt

FROM environment AS serving
COPY docker/trim.sh /build/trim.sh
RUN sh /build/trim.sh /opt/venv

# The inner loops as machine code; Numba, which makes it, stays in this stage.
FROM serving AS kernels
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
COPY docker/install.sh docker/healthcheck.py /build/
RUN sh /build/install.sh

FROM ${BASE_IMAGE} AS runtime
COPY --from=serving /opt/venv /opt/venv
COPY --from=package /opt/rag /opt/rag
ARG ACCELERATOR=cpu
ARG NVIDIA_VISIBLE_DEVICES=""
RUN test "${ACCELERATOR}" = cpu || test -n "${NVIDIA_VISIBLE_DEVICES}" \
    || { echo "ACCELERATOR=${ACCELERATOR} also needs --build-arg NVIDIA_VISIBLE_DEVICES=all" >&2; exit 1; }
ENV PATH=/opt/rag/bin:/opt/venv/bin:${PATH} HOME=/tmp \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=${NVIDIA_VISIBLE_DEVICES} NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["/opt/venv/bin/python", "-S", "/opt/rag/healthcheck.py"]
ENTRYPOINT ["/opt/rag/bin/rag"]
CMD ["serve"]
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
    com.amazonaws.sagemaker.capabilities.multi-models=true \
    org.opencontainers.image.title="rag-inference" \
    org.opencontainers.image.description="Hybrid search and cited answers over one sealed bundle" \
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
