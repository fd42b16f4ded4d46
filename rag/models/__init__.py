"""Encoders, rerankers and generators, each behind a protocol."""

import os

# ONNX Runtime's packages for Linux report to its vendor unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
